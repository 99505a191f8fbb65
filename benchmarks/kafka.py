"""The log on Kafka beside the local log: ``python -m benchmarks.kafka``. One broker on this machine, one replica.

For each log in turn: instances of 0.5 MB are published by several threads, each waiting for its acknowledgement, then
taken and committed in batches. Rates are of the whole; CPU milliseconds are for one instance, the client's (this
process) and the broker's apart. The disk's own sync and loopback stand beside them. One replica and one machine: a cost
per instance, not what a cluster does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ceilings import MIB, disk_sync, loopback
from benchmarks.processes import usage_of
from broker.kafka import KafkaConfiguration, KafkaConsumer, KafkaPublisher
from broker.kafka.topics import LogTopics
from broker.local import LocalConsumer, LocalPublisher
from broker.log import Consumer, Publisher, Taken
from region.kafka import KafkaBroker
from runtime.clock import SystemClock
from schemas.message import INSTANCE_RECEIVED, Lane, Message, MessageAttributes
from segments.checksum import crc32c_hex

_SIZE_BYTES = 512 * 1024
_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log to measure, and the process that serves it, if it is another one."""

    name: str
    publisher: Callable[[], Publisher]
    consumer: Callable[[], Consumer]
    broker_pid: int | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both logs in turn, round by round, and print medians and spread as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--senders", type=int, default=32, help="threads that publish and wait")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the report there, not to standard output")
    options = parser.parse_args(arguments)
    messages = [_message(number) for number in range(options.instances)]
    rounds: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, KafkaBroker(Path(folder) / "kafka") as broker:
        work = Path(folder)
        ceilings = {**disk_sync(work), **loopback()}
        for number in range(options.rounds):
            for log in (_kafka(broker, number, options.partitions), _local(work / f"log-{number}")):
                rounds.setdefault(log.name, []).append(_round(log, messages, options.senders))
    measured = {name: _median(of_log) for name, of_log in rounds.items()}
    report = json.dumps({**_circumstances(vars(options)), **ceilings, **measured}, indent=2, default=str)
    if options.json is None:
        print(report)
    else:
        options.json.write_text(report)


def _kafka(broker: KafkaBroker, number: int, partitions: int) -> Log:
    configuration = KafkaConfiguration(bootstrap=broker.bootstrap, prefix=f"bench-{number}")
    LogTopics(configuration).apply(partitions=partitions, replication=1)
    return Log(
        name="kafka",
        publisher=lambda: KafkaPublisher(configuration),
        consumer=lambda: KafkaConsumer(configuration, lane=Lane.ROUTINE),
        broker_pid=broker.pid,
    )


def _local(folder: Path) -> Log:
    return Log(
        name="local",
        publisher=lambda: LocalPublisher(folder, writer="bench"),
        consumer=lambda: LocalConsumer(folder, lane=Lane.ROUTINE),
        broker_pid=None,
    )


def _round(log: Log, messages: Sequence[Message], senders: int) -> dict[str, float]:
    publisher = log.publisher()
    publisher.publish(messages[0]).result(_WAIT_S)  # connected, files opened
    published = _measured(log, len(messages), lambda: _publish(publisher, messages, senders))
    publisher.close()
    consumer = log.consumer()
    consumer.commit([one.position for one in _first(consumer)])
    taken = _measured(log, len(messages), lambda: _take(consumer, len(messages)))
    consumer.close()
    return {f"publish_{name}": value for name, value in published.items()} | {
        f"take_{name}": value for name, value in taken.items()
    }


def _measured(log: Log, count: int, work: Callable[[], None]) -> dict[str, float]:
    broker_s = _cpu_s(log.broker_pid)
    client_ns, begin_s = time.process_time_ns(), time.perf_counter()
    work()
    took_s = time.perf_counter() - begin_s
    costs = {
        "per_s": round(count / took_s, 1),
        "mib_per_s": round(count * _SIZE_BYTES / MIB / took_s, 1),
        "client_cpu_ms": round((time.process_time_ns() - client_ns) / 1e6 / count, 3),
    }
    if log.broker_pid is not None:
        costs["broker_cpu_ms"] = round((_cpu_s(log.broker_pid) - broker_s) * 1e3 / count, 3)
    return costs


def _publish(publisher: Publisher, messages: Sequence[Message], senders: int) -> None:
    """Each sender publishes its share, one message after the other, as an association does."""

    def send(share: Sequence[Message]) -> None:
        for message in share:
            publisher.publish(message).result(_WAIT_S)

    threads = [threading.Thread(target=send, args=(messages[n::senders],)) for n in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _first(consumer: Consumer) -> list[Taken]:
    """The message published before the clock ran: partitions are assigned then."""
    taken: list[Taken] = []
    deadline_s = time.monotonic() + _WAIT_S
    while not taken and time.monotonic() < deadline_s:
        taken += consumer.take(max_messages=1, max_bytes=1, wait_s=1.0)
    return taken


def _take(consumer: Consumer, count: int) -> None:
    """Take and commit in batches of a worker's size."""
    deadline_s = time.monotonic() + _WAIT_S
    while count > 0 and time.monotonic() < deadline_s:
        taken = consumer.take(max_messages=256, max_bytes=64 * MIB, wait_s=1.0)
        consumer.commit([one.position for one in taken])
        count -= len(taken)


def _cpu_s(pid: int | None) -> float:
    return usage_of(pid).cpu_s if pid is not None else 0.0


def _message(number: int) -> Message:
    value = os.urandom(_SIZE_BYTES)
    clock = SystemClock()
    attributes = MessageAttributes(
        id=clock.new_id(),
        type=INSTANCE_RECEIVED,
        source="/edge/bench",
        time="2026-03-01T08:15:00.000000Z",
        tenant="default",
        lane=Lane.ROUTINE,
        study_uid=f"1.2.3.{number % 20}",
        size_bytes=len(value),
        crc32c=crc32c_hex([value]),
    )
    return Message(attributes=attributes, value=value)


def _median(rounds: Sequence[dict[str, float]]) -> dict[str, object]:
    return {
        name: {
            "median": statistics.median(one[name] for one in rounds),
            "least": min(one[name] for one in rounds),
            "most": max(one[name] for one in rounds),
        }
        for name in rounds[0]
    }


def _circumstances(parameters: dict[str, object]) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "parameters": parameters,
    }


if __name__ == "__main__":
    main()
