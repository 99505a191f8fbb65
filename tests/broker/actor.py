"""A process that a test kills: ``python -m tests.broker.actor publish|consume LOG_DIR COUNT``.

It says on standard output what it was promised, a line each, and dies where ``SANSFILM_FAULT`` says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from broker.local import LocalConsumer, LocalPublisher
from runtime.errors import OutOfSpace
from schemas.message import Lane
from tests.broker.messages import instance, number_of

TIMEOUT_S = 20.0


def publish(log_dir: Path, count: int) -> None:
    """Publish one after the other, in small files; stop when there is no space."""
    publisher = LocalPublisher(log_dir, writer="edge-0-actor", file_max_bytes=20_000)
    for number in range(count):
        try:
            publisher.publish(instance(number)).result(TIMEOUT_S)
        except OutOfSpace:
            say("full", number)
            break
        say("acknowledged", number)
    publisher.close()


def consume(log_dir: Path, count: int) -> None:
    """Take and commit three at a time."""
    consumer = LocalConsumer(log_dir, lane=Lane.ROUTINE)
    done = 0
    while done < count and (taken := consumer.take(max_messages=3, max_bytes=1_000_000, wait_s=0.2)):
        for one in taken:
            say("taken", number_of(one.message))
        consumer.commit([one.position for one in taken])
        for one in taken:
            say("committed", number_of(one.message))
        done += len(taken)
    consumer.close()


def say(what: str, number: int) -> None:
    print(what, number, flush=True)


if __name__ == "__main__":
    {"publish": publish, "consume": consume}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
