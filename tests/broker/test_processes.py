"""Real processes, killed at each fault point of the log; a real file system that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.local import LocalConsumer, LocalPublisher
from runtime.faults import VARIABLE
from schemas.message import Lane
from tests.broker.contract import numbers, publish
from tests.broker.messages import instance

ROOT = Path(__file__).parents[2]
ACTOR = [sys.executable, "-m", "tests.broker.actor"]


def act(what: str, log_dir: Path, count: int, fault: str = "") -> tuple[dict[str, list[int]], int]:
    """Run the actor; gives what it said, and how it ended."""
    environment = {**os.environ, VARIABLE: fault}
    command = [*ACTOR, what, str(log_dir), str(count)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=60)
    said: dict[str, list[int]] = {}
    for line in done.stdout.splitlines():
        word, number = line.split()
        said.setdefault(word, []).append(int(number))
    return said, done.returncode


def fill(log_dir: Path) -> None:
    """Twenty messages in several files."""
    publisher = LocalPublisher(log_dir, writer="edge-0-test", file_max_bytes=10_000)
    for number in range(20):
        publish(publisher, [instance(number)])
    publisher.close()


def left(log_dir: Path) -> list[int]:
    consumer = LocalConsumer(log_dir, lane=Lane.ROUTINE)
    taken = consumer.take(max_messages=1000, max_bytes=10_000_000, wait_s=0)
    consumer.commit([one.position for one in taken])
    assert consumer.lag() == {Lane.ROUTINE: 0}
    consumer.take(max_messages=1, max_bytes=1, wait_s=0.01)
    consumer.close()
    assert list(log_dir.rglob("*.tar")) == []
    return numbers(taken)


@pytest.mark.parametrize("point", ["log.appended", "log.synced", "log.marked"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_killed_publisher_loses_nothing_acknowledged(tmp_path: Path, point: str, count: int) -> None:
    said, code = act("publish", tmp_path, 20, f"{point}:{count}")

    acknowledged = said.get("acknowledged", [])
    assert code == -signal.SIGKILL
    # The kill may overtake the actor's words by one; what it was told is there in any case, and nothing twice.
    assert left(tmp_path) == list(range(count))
    assert acknowledged == list(range(len(acknowledged)))
    assert len(acknowledged) == count - 1


@pytest.mark.parametrize(
    "fault", ["log.position_written:1", "log.position_written:4", "log.deleted:1", "log.deleted:2"]
)
def test_a_killed_consumer_commits_what_it_said(tmp_path: Path, fault: str) -> None:
    fill(tmp_path)

    said, code = act("consume", tmp_path, 20, fault)

    assert code == -signal.SIGKILL
    # Positions were durable when it died, so what it had taken is done.
    assert left(tmp_path) == list(range(len(said["taken"]), 20))
    assert said.get("committed", []) == said["taken"][:-3]


def test_a_consumer_without_a_fault_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path)

    said, code = act("consume", tmp_path, 20)

    assert (code, said["committed"], left(tmp_path)) == (0, list(range(20)), [])


def test_a_really_full_file_system_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=512k none {tmp_path}"
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs in a mount namespace of one's own needs root")
    publishing = " ".join([*ACTOR, "publish", str(tmp_path), "1000"])
    consuming = " ".join([*ACTOR, "consume", str(tmp_path), "1000"])
    # The consumer has been there before, as in operation; then the disk fills to the last byte.
    filling = f"head -c 1M /dev/zero > {tmp_path}/filler 2>&1"
    script = "; ".join([mount, consuming, publishing, filling, consuming, f"ls {tmp_path}/routine"])
    command = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True)

    said = [line.split() for line in done.stdout.splitlines()]
    acknowledged = [line[1] for line in said if line[0] == "acknowledged"]
    assert len(acknowledged) > 20
    assert ["full", str(len(acknowledged))] in said
    assert [line[1] for line in said if line[0] == "committed"] == acknowledged
    assert ".tar" not in done.stdout
