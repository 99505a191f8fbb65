"""The local log under power cuts: at every point of a script, and with each sync left out in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.local import LocalConsumer, LocalPublisher
from schemas.message import Lane, Message
from tests.broker.messages import instance, number_of
from tests.disks import Operation, RecordingDisk, Site, losses, power_cut

LANE = Lane.ROUTINE


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The publisher promised that this message is durable."""

    number: int


@dataclass(frozen=True, slots=True)
class Committing:
    """From here on the message may come again or not."""

    number: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The consumer promised that this message will not come again."""

    number: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The writer ended in order: nothing of it may look torn."""


def script(log_dir: Path, ignored: Site | None = None, *, senders_write: bool = False) -> RecordingDisk:
    """Two starts of a publisher, files that roll, commits, deletions."""
    disk = RecordingDisk(ignored=ignored)
    consumer: LocalConsumer | None = None
    for start in range(2):
        publisher = LocalPublisher(
            log_dir, writer=f"edge-0-{start}", file_max_bytes=5000, senders_write=senders_write, disk=disk
        )
        for number in range(start * 4, start * 4 + 4):
            publisher.publish(instance(number)).result(20)
            disk.note(Acknowledged(number))
            if number % 3 == 0:
                consumer = consumer or LocalConsumer(log_dir, lane=LANE, disk=disk)
                commit_some(consumer, disk)
        publisher.close()
        disk.note(Closed())
    assert consumer is not None
    for _ in range(3):  # with no new file between them: a deletion is durable by its own sync
        commit_some(consumer, disk)
    consumer.close()
    return disk


def commit_some(consumer: LocalConsumer, disk: RecordingDisk) -> None:
    taken = consumer.take(max_messages=2, max_bytes=10_000, wait_s=1)
    for one in taken:
        disk.note(Committing(number_of(one.message)))
    consumer.commit([one.position for one in taken])
    for one in taken:
        disk.note(Committed(number_of(one.message)))


def broken_promises(disk: RecordingDisk, log_dir: Path, scratch: Path) -> Iterator[str]:
    """What a power cut behind any operation takes back."""
    for at in range(len(disk.operations) + 1):
        for number, loss in enumerate(losses(at, random_ones=2)):
            target = scratch / f"{at}-{number}"
            power_cut(disk.operations[:at], log_dir, target, loss)
            for broken in _broken_in(disk.operations[:at], target):
                yield f"behind operation {at}, loss {number}: {broken}"


def _broken_in(done: Sequence[Operation], log_dir: Path) -> Iterator[str]:
    notes = [operation.note for operation in done if operation.kind == "note"]
    acknowledged = {note.number for note in notes if isinstance(note, Acknowledged)}
    committing = {note.number for note in notes if isinstance(note, Committing)}
    committed = {note.number for note in notes if isinstance(note, Committed)}
    with capture_logs() as events:
        delivered = everything(log_dir)
    found = [number_of(message) for message in delivered]
    if lost := acknowledged - committing - set(found):
        yield f"lost {lost}"
    if again := committed & set(found):
        yield f"delivered again {again}"
    if len(found) != len(set(found)):
        yield "delivered twice"
    if any(bytes(message.value) != instance(number_of(message)).value for message in delivered):
        yield "other bytes"
    kinds = {event.get("kind", event["event"]) for event in events}
    may_be_torn = not (done and done[-1].note == Closed())
    if not kinds <= ({"tail"} if may_be_torn else set()):
        yield f"alarms {kinds}"


def everything(log_dir: Path) -> list[Message]:
    consumer = LocalConsumer(log_dir, lane=LANE)
    taken = consumer.take(max_messages=1000, max_bytes=10_000_000, wait_s=0)
    consumer.close()
    return [one.message for one in taken]


SITES: list[Site] = [
    ("folder", "SystemDisk.make_folder", "LaneWriter._open", "LaneWriter._commit_group"),
    ("folder", "FileWriter.__init__", "LaneWriter._open", "LaneWriter._commit_group"),
    ("file", "SegmentWriter.sync", "FileWriter.sync", "LaneWriter._commit_group"),
    ("file", "SegmentWriter.sync", "FileWriter.finish", "LaneWriter._drop_file"),
    ("file", "SystemDisk.replace", "PositionsFile._rewrite", "PositionsFile.__init__"),
    ("folder", "SystemDisk.replace", "PositionsFile._rewrite", "PositionsFile.__init__"),
    ("file", "PositionsFile.save", "LocalConsumer._save", "LocalConsumer.commit"),
    ("folder", "LocalConsumer._remove_done", "LocalConsumer.commit"),
]


@pytest.mark.parametrize("senders_write", [False, True])
def test_a_power_cut_anywhere_takes_nothing_back(tmp_path: Path, senders_write: bool) -> None:
    disk = script(tmp_path / "log", senders_write=senders_write)

    assert list(broken_promises(disk, tmp_path / "log", tmp_path / "cut")) == []
    assert sorted(disk.sites) == sorted(SITES)


@pytest.mark.parametrize("senders_write", [False, True])
@pytest.mark.parametrize("site", SITES, ids=" < ".join)
def test_without_any_one_sync_something_would_break(tmp_path: Path, site: Site, senders_write: bool) -> None:
    disk = script(tmp_path / "log", ignored=site, senders_write=senders_write)

    assert site in disk.sites
    assert next(broken_promises(disk, tmp_path / "log", tmp_path / "cut"), None) is not None
