"""The local log against a dict: publish, die, restart, take, commit, rewind, cut the power, in any order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from structlog.testing import capture_logs

from broker.local import LocalConsumer, LocalPublisher
from broker.log import Taken
from schemas.message import Lane
from tests.broker.messages import instance, number_of
from tests.broker.test_local_log import kill
from tests.disks import Loss, RecordingDisk, losses, power_cut

LANE = Lane.ROUTINE
TIMEOUT_S = 20.0


class LogMachine(RuleBasedStateMachine):
    """At any time: acknowledged and not committed = delivered by whoever reads the log from here."""

    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.TemporaryDirectory()
        self.starts = 0
        self.acknowledged: dict[int, int] = {}
        self.committed: set[int] = set()
        self.taken: list[Taken] = []
        self.open_log(Path(self.base.name) / "0")

    def open_log(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.disk = RecordingDisk()
        self.disk.adopt(log_dir)
        self.disk.make_folder(log_dir / LANE.value)
        self.publishers = [self.new_publisher(), self.new_publisher()]
        self.consumer = LocalConsumer(log_dir, lane=LANE, disk=self.disk)

    def new_publisher(self) -> LocalPublisher:
        self.starts += 1
        writer = f"edge-0-{self.starts:04d}"
        senders_write = self.starts % 2 == 0
        return LocalPublisher(
            self.log_dir, writer=writer, file_max_bytes=9000, senders_write=senders_write, disk=self.disk
        )

    def teardown(self) -> None:
        for publisher in self.publishers:
            publisher.close()
        self.consumer.close()
        self.base.cleanup()

    @rule(which=st.integers(0, 1), sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=4))
    def publish(self, which: int, sizes: list[int]) -> None:
        first = len(self.acknowledged)
        futures = [self.publishers[which].publish(instance(first + n, size_bytes=size)) for n, size in enumerate(sizes)]
        for n, (future, size) in enumerate(zip(futures, sizes, strict=True)):
            future.result(TIMEOUT_S)
            self.acknowledged[first + n] = size

    @rule(which=st.integers(0, 1), orderly=st.booleans())
    def restart_publisher(self, which: int, orderly: bool) -> None:
        if not orderly and all(lane._file is not None for lane in self.publishers[which]._lanes.values()):
            kill(self.publishers[which])
        self.publishers[which].close()
        self.publishers[which] = self.new_publisher()

    @rule(max_messages=st.integers(1, 5), max_bytes=st.integers(1, 9000))
    def take(self, max_messages: int, max_bytes: int) -> None:
        taken = self.consumer.take(max_messages=max_messages, max_bytes=max_bytes, wait_s=0)
        assert len(taken) <= max_messages
        assert sum(len(one.message.value) for one in taken) <= max_bytes or len(taken) == 1
        expected = self.acknowledged.keys() - self.committed - {number_of(one.message) for one in self.taken}
        assert {number_of(one.message) for one in taken} <= expected
        assert taken or not expected
        self.taken += taken

    @rule(share=st.floats(0, 1))
    def commit(self, share: float) -> None:
        count = round(len(self.taken) * share)
        done, self.taken = self.taken[:count], self.taken[count:]
        self.consumer.commit([one.position for one in done])
        self.committed |= {number_of(one.message) for one in done}

    @rule()
    def rewind(self) -> None:
        self.consumer.rewind()
        self.taken = []

    @rule()
    def restart_consumer(self) -> None:
        self.consumer.close()
        self.consumer = LocalConsumer(self.log_dir, lane=LANE, disk=self.disk)
        self.taken = []

    @rule(seed=st.integers(0, 2**16), which=st.integers(0, 6))
    def cut_the_power(self, seed: int, which: int) -> None:
        """Go on with what is left, on the other side."""
        operations = list(self.disk.operations)
        for publisher in self.publishers:
            publisher.close()
        self.consumer.close()
        self.starts += 1
        target = Path(self.base.name) / str(self.starts)
        power_cut(operations, self.log_dir, target, self.loss(seed, which))
        with capture_logs() as events:
            self.check_everything(target)
        assert {event.get("kind") for event in events} <= {"tail"}
        self.taken = []
        self.open_log(target)

    def loss(self, seed: int, which: int) -> Loss:
        every = losses(seed)
        return every[which % len(every)]

    @invariant()
    def lag_is_what_is_not_committed(self) -> None:
        assert self.consumer.lag() == {LANE: len(self.acknowledged) - len(self.committed)}

    def check_everything(self, log_dir: Path) -> None:
        consumer = LocalConsumer(log_dir, lane=LANE)
        found = consumer.take(max_messages=10_000, max_bytes=1 << 30, wait_s=0)
        consumer.close()
        assert sorted(self.numbers(found)) == sorted(self.acknowledged.keys() - self.committed)
        for one in found:
            number = number_of(one.message)
            assert one.message.value == instance(number, size_bytes=self.acknowledged[number]).value

    def numbers(self, taken: Iterable[Taken]) -> list[int]:
        return [number_of(one.message) for one in taken]


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
