"""An instance on its way in, while the disk fills or the log closes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from broker.local import LocalPublisher
from ingest.admission import DiskRule
from ingest.arrival import Announced, Arrival, Sender
from ingest.intake import Intake
from instances.syntax import EXPLICIT_LE
from runtime.clock import SystemClock
from runtime.errors import Rejected
from runtime.settings import EdgeSettings
from schemas.reasons import RejectReason
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset

LARGE = mr_dataset(1, rows=600, columns=600)


class Receiver:
    """An intake whose disk has as much room as a test says."""

    def __init__(self, folder: Path) -> None:
        settings = EdgeSettings(data_dir=folder, disk_reserve_bytes=0, inline_max_bytes=65536)
        clock = SystemClock()
        self.archive_dir = settings.archive_dir
        self.free_bytes = 1 << 20
        self.publisher = LocalPublisher(settings.log_dir, writer="edge-0")
        rule = DiskRule(settings, clock, uncommitted_bytes=lambda: 0, free_bytes=lambda: self.free_bytes)
        self._intake = Intake(self.publisher, settings, clock, rule)

    def begin(self) -> Arrival:
        announced = Announced(
            sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid=str(LARGE.SOPInstanceUID), transfer_syntax=EXPLICIT_LE
        )
        return self._intake.begin(Sender(route="cstore", association_id="a"), announced, self._intake.buffer())

    def kept(self) -> list[Path]:
        """What is left of large instances."""
        return [path for path in self.archive_dir.rglob("*") if path.is_file()]


def test_a_large_instance_ends_where_the_reserve_begins(tmp_path: Path) -> None:
    """It is asked again for every piece: large instances that came together could else use up what is kept back."""
    receiver, sent = Receiver(tmp_path), dataset_bytes(LARGE)
    with closing(receiver.publisher):
        arrival = receiver.begin()
        arrival.take(sent[: len(sent) // 2])
        assert receiver.kept()
        receiver.free_bytes = -1
        arrival.take(sent[len(sent) // 2 :])
        with pytest.raises(Rejected) as refused:
            arrival.publish()
    assert refused.value.reason is RejectReason.DISK_LOW
    assert not receiver.kept()


def test_a_large_instance_that_the_log_refuses_at_once_leaves_nothing(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    arrival = receiver.begin()
    arrival.take(dataset_bytes(LARGE))
    receiver.publisher.close()
    with pytest.raises(Rejected) as refused:
        arrival.publish()
    assert refused.value.reason is RejectReason.LOG_UNAVAILABLE
    assert not receiver.kept()
