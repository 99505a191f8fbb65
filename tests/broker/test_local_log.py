"""The local log keeps the contract, and what only files can show."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.local import LocalConsumer, LocalPublisher, log_usage
from broker.local.layout import FileName
from broker.local.mark import MARK_BYTES, Mark
from broker.log import Publisher
from runtime.errors import Misconfigured, OutOfSpace, Retryable
from schemas.message import Lane
from segments.disk import Disk
from segments.recover import recover
from tests.broker.contract import TIMEOUT_S, Log, LogContract, nothing_left, numbers, publish, take_all
from tests.broker.messages import instance
from tests.disks import FailingDisk
from tests.waiting import until


class LocalLog:
    """A log in a folder; each publisher is another start of a process."""

    def __init__(self, folder: Path, *, senders_write: bool = False) -> None:
        self.folder = folder
        self._senders_write = senders_write
        self._opened: list[LocalPublisher | LocalConsumer] = []

    def publisher(
        self,
        *,
        disk: Disk | None = None,
        file_max_bytes: int = 1 << 28,
        queue_max_bytes: int = 1 << 26,
        queue_timeout_s: float = TIMEOUT_S,
    ) -> LocalPublisher:
        writer = f"edge-0-{len(self._opened):04d}"
        publisher = LocalPublisher(
            self.folder,
            writer=writer,
            senders_write=self._senders_write,
            disk=disk,
            file_max_bytes=file_max_bytes,
            queue_max_bytes=queue_max_bytes,
            queue_timeout_s=queue_timeout_s,
        )
        self._opened.append(publisher)
        return publisher

    def consumer(self, lane: Lane = Lane.ROUTINE, *, group: str = "workers", disk: Disk | None = None) -> LocalConsumer:
        consumer = LocalConsumer(self.folder, lane=lane, group=group, disk=disk, lock_timeout_s=0)
        self._opened.append(consumer)
        return consumer

    def files(self, suffix: str = ".tar") -> list[Path]:
        return sorted((self.folder / "routine").glob(f"*{suffix}"))

    def close(self) -> None:
        for one in self._opened:
            one.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    log = LocalLog(tmp_path / "log")
    yield log
    log.close()


@pytest.fixture(params=[False, True], ids=["thread writes", "senders write"])
def either_log(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalLog]:
    """For what is promised whoever writes."""
    log = LocalLog(tmp_path / "log", senders_write=request.param)
    yield log
    log.close()


class TestLocalLog(LogContract):
    """The contract on local files, whoever writes."""

    @pytest.fixture(params=[False, True], ids=["thread writes", "senders write"])
    def log(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
        log = LocalLog(tmp_path / "log", senders_write=request.param)
        yield log
        log.close()


def kill(publisher: Publisher) -> None:
    """Leave the files as a killed process does: not sealed, not marked finished, locks free."""
    assert isinstance(publisher, LocalPublisher)
    for lane in publisher._lanes.values():
        assert lane._file is not None
        lane._file.close()
        lane._file = None


def test_a_mark_is_whole_or_nothing() -> None:
    mark = Mark(offset=2**40, messages=77, finished=True)
    encoded = mark.encode()
    assert (len(encoded), Mark.decode(encoded)) == (MARK_BYTES, mark)
    for size in range(MARK_BYTES):
        assert Mark.decode(encoded[:size]) is None
    for at in range(MARK_BYTES):
        damaged = bytearray(encoded)
        damaged[at] ^= 1
        assert Mark.decode(bytes(damaged)) is None


def test_names_order_by_writer_then_by_writing() -> None:
    names = [
        FileName(writer=writer, sequence=n) for writer in ("edge-0-a", "edge-0-b") for n in (1, 2, 999_999, 1_000_000)
    ]
    backwards = names[::-1]
    assert sorted(backwards) == names
    assert [FileName.parse(str(name)) for name in names] == names
    assert FileName.parse("positions") is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "é"])
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured):
        LocalPublisher(tmp_path, writer=name)
    with pytest.raises(Misconfigured):
        LocalConsumer(tmp_path, lane=Lane.BULK, group=name)


def test_what_is_written_but_not_durable_is_not_taken(log: LocalLog) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert release.wait(TIMEOUT_S)

    disk = FailingDisk()
    publisher, consumer = log.publisher(disk=disk), log.consumer()
    publish(publisher, [instance(0)])
    disk.before_sync = hold
    future = publisher.publish(instance(1))
    assert held.wait(TIMEOUT_S)

    assert len(recover(log.files()[0]).members) == 2
    assert numbers(take_all(consumer, 1)) == [0]
    assert nothing_left(consumer)
    assert not future.done()

    release.set()
    future.result(TIMEOUT_S)
    assert numbers(take_all(consumer, 1)) == [1]


def test_appends_never_touch_a_sector_of_what_was_acknowledged(log: LocalLog) -> None:
    """A disk that loses power while it writes a sector may lose all of it; sectors and file blocks have 4096 bytes."""
    publisher = log.publisher()
    for number in range(8):
        position = publisher.publish(instance(number, size_bytes=number * 700)).result(TIMEOUT_S)
        assert (position.offset % 4096, position.next_offset % 4096) == (0, 0)


def test_what_waits_during_a_sync_is_one_group(log: LocalLog) -> None:
    held, release = threading.Event(), threading.Event()
    syncs = []

    def hold() -> None:
        syncs.append(1)
        held.set()
        assert release.wait(TIMEOUT_S)

    disk = FailingDisk()
    disk.before_sync = hold
    publisher = log.publisher(disk=disk)
    futures = [publisher.publish(instance(0))]
    assert held.wait(TIMEOUT_S)
    futures += [publisher.publish(instance(n)) for n in range(1, 50)]
    release.set()

    assert len({future.result(TIMEOUT_S).stream for future in futures}) == 1
    assert len(syncs) == 2


def test_a_sender_that_finds_nobody_writing_writes_itself(tmp_path: Path) -> None:
    """And what comes meanwhile waits for the log's thread, which writes it as one group."""
    held, release = threading.Event(), threading.Event()
    syncing: list[str] = []

    def hold() -> None:
        syncing.append(threading.current_thread().name)
        held.set()
        assert release.wait(TIMEOUT_S)

    disk = FailingDisk()
    disk.before_sync = hold
    log = LocalLog(tmp_path / "log", senders_write=True)
    publisher = log.publisher(disk=disk)
    sender = threading.Thread(target=lambda: publisher.publish(instance(0)), name="sender")
    sender.start()
    assert held.wait(TIMEOUT_S)
    futures = [publisher.publish(instance(n)) for n in range(1, 50)]
    release.set()

    for future in futures:
        future.result(TIMEOUT_S)
    until(lambda: not publisher._lanes[Lane.ROUTINE]._writing)
    assert publisher.publish(instance(50)).done()
    sender.join(TIMEOUT_S)
    assert syncing == ["sender", "log-routine", threading.current_thread().name]
    assert numbers(take_all(log.consumer(), 51)) == list(range(51))
    log.close()


def test_closing_waits_for_the_sender_that_writes(tmp_path: Path) -> None:
    held, release = threading.Event(), threading.Event()
    syncing = []

    def hold() -> None:
        syncing.append(threading.current_thread().name)
        held.set()
        assert release.wait(TIMEOUT_S)

    disk = FailingDisk()
    disk.before_sync = hold
    log = LocalLog(tmp_path / "log", senders_write=True)
    publisher = log.publisher(disk=disk)
    sender = threading.Thread(target=lambda: publisher.publish(instance(0)))
    closer = threading.Thread(target=publisher.close)
    sender.start()
    assert held.wait(TIMEOUT_S)
    waiting = publisher.publish(instance(1))
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    assert not waiting.done()
    assert len(syncing) == 1

    release.set()
    closer.join(TIMEOUT_S)
    sender.join(TIMEOUT_S)
    assert not closer.is_alive()
    assert numbers(take_all(log.consumer(), 2)) == [0, 1]
    log.close()


def test_a_full_queue_holds_the_sender_back(log: LocalLog) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert release.wait(TIMEOUT_S)

    disk = FailingDisk()
    disk.before_sync = hold
    publisher = log.publisher(disk=disk, queue_max_bytes=2000)
    publisher.publish(instance(0))
    assert held.wait(TIMEOUT_S)
    publisher.publish(instance(1, size_bytes=1500))
    blocked = threading.Thread(target=lambda: publisher.publish(instance(2, size_bytes=1500)).result(TIMEOUT_S))
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()

    release.set()
    blocked.join(TIMEOUT_S)
    assert not blocked.is_alive()


def test_a_sender_is_not_held_back_for_ever(log: LocalLog) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert release.wait(TIMEOUT_S)

    disk = FailingDisk()
    disk.before_sync = hold
    publisher = log.publisher(disk=disk, queue_max_bytes=2000, queue_timeout_s=0.05)
    publisher.publish(instance(0))
    assert held.wait(TIMEOUT_S)
    publisher.publish(instance(1, size_bytes=1500))
    with pytest.raises(Retryable, match="queue is full"):
        publisher.publish(instance(2, size_bytes=1500))
    release.set()


def test_files_roll_and_are_deleted_when_done(either_log: LocalLog) -> None:
    publisher, consumer = either_log.publisher(file_max_bytes=5000), either_log.consumer()
    for n in range(10):
        publish(publisher, [instance(n)])
    assert len(either_log.files()) > 2
    for path in either_log.files()[:-1]:
        assert subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stderr == ""

    taken = take_all(consumer, 10)
    consumer.commit([one.position for one in taken[:-1]])
    assert len(either_log.files()) == 1
    consumer.commit([taken[-1].position])
    publisher.close()
    consumer.take(max_messages=1, max_bytes=1, wait_s=0.01)

    assert (either_log.files(), either_log.files(".mark")) == ([], [])
    assert log_usage(either_log.folder).uncommitted_bytes == 0


def test_a_file_stays_until_every_group_is_done(log: LocalLog) -> None:
    publisher = log.publisher()
    workers, shadow = log.consumer(), log.consumer(group="shadow")
    publish(publisher, map(instance, range(2)))
    shadow.commit([take_all(shadow, 2)[0].position])
    publisher.close()

    workers.commit([one.position for one in take_all(workers, 2)])
    workers.take(max_messages=1, max_bytes=1, wait_s=0.01)
    assert len(log.files()) == 1

    shadow.rewind()
    shadow.commit([take_all(shadow, 1)[0].position])
    shadow.take(max_messages=1, max_bytes=1, wait_s=0.01)
    assert log.files() == []


def test_writers_take_turns(log: LocalLog) -> None:
    busy, quiet, consumer = log.publisher(), log.publisher(), log.consumer()
    publish(busy, map(instance, range(50)))
    publish(quiet, [instance(100)])

    first_two = [consumer.take(max_messages=10, max_bytes=10_000_000, wait_s=1.0) for _ in range(2)]

    assert 100 in [n for batch in first_two for n in numbers(batch)]


def test_a_second_consumer_of_the_group_is_refused(log: LocalLog) -> None:
    first = log.consumer()
    with pytest.raises(Misconfigured, match="already reads"):
        log.consumer()
    first.close()
    log.consumer()


def test_usage_is_seen_from_outside(log: LocalLog) -> None:
    publisher, consumer = log.publisher(), log.consumer()
    assert log_usage(log.folder / "nothing here").uncommitted_bytes == 0
    publish(publisher, [instance(n) for n in range(3)] + [instance(9, lane=Lane.URGENT)])

    usage = log_usage(log.folder)
    assert usage.uncommitted_messages == {Lane.URGENT: 1, Lane.ROUTINE: 3, Lane.BULK: 0}
    assert usage.uncommitted_bytes == sum(path.stat().st_size for path in log.folder.rglob("*.tar"))

    consumer.commit([take_all(consumer, 3)[-1].position])
    assert log_usage(log.folder).uncommitted_messages == {Lane.URGENT: 1, Lane.ROUTINE: 0, Lane.BULK: 0}


def test_a_dead_writers_file_is_read_to_its_end(log: LocalLog) -> None:
    publisher, consumer = log.publisher(), log.consumer()
    publish(publisher, map(instance, range(3)))
    (mark,) = log.files(".mark")
    mark.write_bytes(Mark().encode())  # the last mark was lost
    assert nothing_left(consumer)
    assert consumer.lag() == {Lane.ROUTINE: 0}
    kill(publisher)

    assert consumer.lag() == {Lane.ROUTINE: 3}
    assert numbers(take_all(consumer, 3)) == [0, 1, 2]
    assert consumer.lag() == {Lane.ROUTINE: 3}


def test_a_dead_writers_file_torn_at_any_byte(log: LocalLog) -> None:
    publisher = log.publisher()
    ends = [publisher.publish(instance(n)).result(TIMEOUT_S).next_offset for n in range(3)]
    kill(publisher)
    (path,) = log.files()
    content = path.read_bytes()
    for size in range(0, len(content) + 1, 37):
        path.write_bytes(content[:size])
        for state in (*log.files(".mark"), *log.files(".torn")):
            state.unlink()
        consumer = log.consumer(group=f"torn-{size}")
        with capture_logs() as events:
            taken = consumer.take(max_messages=10, max_bytes=1_000_000, wait_s=0)
        consumer.close()
        assert numbers(taken) == [n for n in range(3) if ends[n] <= size], size
        assert all(event["kind"] == "tail" for event in events), size


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError()])
def test_a_bug_or_no_memory_fails_its_group_and_the_log_goes_on(either_log: LocalLog, error: Exception) -> None:
    def bug() -> None:
        disk.before_sync = lambda: None
        raise error

    disk = FailingDisk()
    publisher = either_log.publisher(disk=disk)
    publish(publisher, [instance(0)])
    disk.before_sync = bug
    with pytest.raises(Retryable, match="could not write"):
        publisher.publish(instance(1)).result(TIMEOUT_S)
    publish(publisher, [instance(2)])
    publisher.close()
    assert {0, 2} <= set(numbers(take_all(either_log.consumer(), 3)))


def test_a_dead_writers_torn_tail_is_kept_and_the_file_done(log: LocalLog) -> None:
    publisher, consumer = log.publisher(), log.consumer()
    publish(publisher, map(instance, range(3)))
    kill(publisher)
    (path,) = log.files()
    content = path.read_bytes()
    path.write_bytes(content + content[:2000])

    with capture_logs() as events:
        consumer.commit([one.position for one in take_all(consumer, 3)])
        consumer.take(max_messages=1, max_bytes=1, wait_s=0.01)

    assert [(event["event"], event["kind"]) for event in events] == [("segment_torn", "tail")]
    assert log.files() == []
    (torn,) = log.files(".torn")
    assert content[:2000].startswith(torn.read_bytes())


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 300, 700, 2600], ids=["pax name", "header", "records", "body"])
def test_rot_costs_the_one_message_and_blocks_nothing(log: LocalLog, alive: bool, victim: int, at: int) -> None:
    publisher, consumer = log.publisher(), log.consumer()
    sent = [publisher.publish(instance(n)) for n in range(3)]
    positions = [future.result(TIMEOUT_S) for future in sent]
    (path,) = log.files()
    with path.open("r+b") as file:
        file.seek(positions[victim].offset + min(at, positions[victim].next_offset - positions[victim].offset - 500))
        file.write(b"\xff" * 16)
    if not alive:
        kill(publisher)

    with capture_logs() as events:
        taken = take_all(consumer, 2)
        nothing_left(consumer)
        consumer.commit([one.position for one in taken])

    assert numbers(taken) == [n for n in range(3) if n != victim]
    assert [(event["event"], event["kind"]) for event in events] == [("segment_torn", "corrupt")]
    assert consumer.lag() == {Lane.ROUTINE: 0}
    (torn,) = log.files(".torn")
    assert torn.stat().st_size > 1000


def test_rot_that_cannot_be_set_aside_keeps_the_file(log: LocalLog) -> None:
    disk = FailingDisk()
    publisher, consumer = log.publisher(), log.consumer(disk=disk)
    position = publisher.publish(instance(0)).result(TIMEOUT_S)
    publish(publisher, [instance(1)])
    publisher.close()
    (path,) = log.files()
    with path.open("r+b") as file:
        file.seek(position.offset)
        file.write(b"\xff" * 16)

    disk.space_bytes = 0
    taken = take_all(consumer, 1)
    disk.space_bytes = None
    consumer.commit([one.position for one in taken])
    consumer.take(max_messages=1, max_bytes=1, wait_s=0.01)

    assert numbers(taken) == [1]
    assert log.files() == [path]


def test_unreadable_positions_deliver_everything_again(log: LocalLog) -> None:
    publisher, consumer = log.publisher(), log.consumer()
    publish(publisher, map(instance, range(2)))
    consumer.commit([take_all(consumer, 2)[0].position])
    consumer.close()
    (log.folder / "routine/positions-workers").write_bytes(b"\0\0")

    assert numbers(take_all(log.consumer(), 2)) == [0, 1]


def test_marks_and_parts_without_a_file_are_swept(log: LocalLog) -> None:
    folder = log.folder / "routine"
    folder.mkdir(parents=True)
    for name in ("edge-0-gone-000001.mark", "edge-0-gone-000001.tar.part"):
        (folder / name).touch()
    log.consumer()
    assert sorted(path.name for path in folder.iterdir()) == ["positions-workers", "positions-workers.lock"]


class TestFullDisk:
    """The disk fills while the log is written."""

    @pytest.mark.parametrize("space_bytes", [0, 1, 600, 1600, 2000, 2300])
    def test_nothing_half_written_is_delivered(self, either_log: LocalLog, space_bytes: int) -> None:
        disk = FailingDisk()
        publisher, consumer = either_log.publisher(disk=disk), either_log.consumer()
        publish(publisher, map(instance, range(2)))

        disk.space_bytes = space_bytes
        with pytest.raises(OutOfSpace):
            publisher.publish(instance(2)).result(TIMEOUT_S)
        with pytest.raises(OutOfSpace):
            publisher.publish(instance(3, size_bytes=4000)).result(TIMEOUT_S)
        disk.space_bytes = None
        publish(publisher, [instance(4)])

        with capture_logs() as events:
            taken = take_all(consumer, 3)
            assert nothing_left(consumer)
        assert numbers(taken) == [0, 1, 4]
        assert events == []
        consumer.commit([one.position for one in taken])
        assert consumer.lag() == {Lane.ROUTINE: 0}
        assert len(either_log.files()) == 1

    def test_a_failed_sync_abandons_the_file(self, either_log: LocalLog) -> None:
        disk = FailingDisk()
        publisher, consumer = either_log.publisher(disk=disk), either_log.consumer()
        publish(publisher, [instance(0)])

        disk.fails_sync = True
        with pytest.raises(Retryable, match="EIO"):
            publisher.publish(instance(1)).result(TIMEOUT_S)
        disk.fails_sync = False
        after = publisher.publish(instance(2)).result(TIMEOUT_S)

        taken = take_all(consumer, 2)
        assert numbers(taken) == [0, 2]
        assert after.stream != taken[0].position.stream
        # Not only the mark keeps consumers from it: it is gone from the file.
        assert [len(recover(path).members) for path in either_log.files()] == [1, 1]
        assert nothing_left(consumer)

    def test_a_mark_that_cannot_be_written_loses_nothing(self, either_log: LocalLog) -> None:
        disk = FailingDisk()
        publisher, consumer = either_log.publisher(disk=disk), either_log.consumer()
        publish(publisher, [instance(0)])

        disk.fails_overwrite = True
        publish(publisher, [instance(1)])
        disk.fails_overwrite = False
        publish(publisher, [instance(2)])

        assert numbers(take_all(consumer, 3)) == [0, 1, 2]

    def test_the_group_fails_together_and_each_sender_has_its_own_error(self, log: LocalLog) -> None:
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            assert release.wait(TIMEOUT_S)

        disk = FailingDisk()
        disk.before_sync = hold
        publisher = log.publisher(disk=disk)
        first = publisher.publish(instance(0))
        assert held.wait(TIMEOUT_S)
        group = [publisher.publish(instance(n)) for n in range(1, 4)]
        disk.space_bytes = 1000
        release.set()

        assert first.result(TIMEOUT_S)
        errors = [future.exception(TIMEOUT_S) for future in group]
        assert [type(error) for error in errors] == [OutOfSpace] * 3
        assert len({id(error) for error in errors}) == 3

    def test_a_commit_needs_no_space(self, log: LocalLog) -> None:
        disk = FailingDisk()
        publisher, consumer = log.publisher(), log.consumer(disk=disk)
        publish(publisher, map(instance, range(2)))
        publisher.close()

        disk.space_bytes = 0
        consumer.commit([one.position for one in take_all(consumer, 2)])
        consumer.take(max_messages=1, max_bytes=1, wait_s=0.01)
        consumer.close()

        assert log.files() == []
        assert nothing_left(log.consumer(disk=disk))

    def test_a_failed_commit_may_be_repeated(self, log: LocalLog) -> None:
        disk = FailingDisk()
        publisher, consumer = log.publisher(), log.consumer(disk=disk)
        publish(publisher, map(instance, range(2)))
        positions = [one.position for one in take_all(consumer, 2)]

        disk.fails_sync = True
        with pytest.raises(Retryable):
            consumer.commit(positions)
        disk.fails_sync = False
        consumer.commit(positions)
        consumer.close()

        assert nothing_left(log.consumer())


def test_attributes_no_record_can_hold_fail_alone(either_log: LocalLog) -> None:
    publisher, consumer = either_log.publisher(), either_log.consumer()
    odd = instance(1)
    odd = replace(odd, attributes=replace(odd.attributes, calling_ae="\ud800"))
    with pytest.raises(Retryable):
        publisher.publish(odd).result(TIMEOUT_S)
    publish(publisher, [instance(2)])
    assert numbers(take_all(consumer, 1)) == [2]


def test_descriptors_do_not_pile_up(log: LocalLog) -> None:
    publisher, consumer = log.publisher(file_max_bytes=1), log.consumer()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n in range(40):
        publish(publisher, [instance(n)])
    assert consumer.lag() == {Lane.ROUTINE: 40}
    assert len(take_all(consumer, 40)) == 40
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4
