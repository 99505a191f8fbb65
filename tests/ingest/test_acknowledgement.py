"""Success is said when, and only when, the log has the instance durably."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from broker.local import LocalPublisher
from broker.log import Position
from ingest.admission import DiskRule
from ingest.edge import Edge
from ingest.intake import Intake
from runtime.clock import SystemClock
from runtime.errors import OutOfSpace, Retryable
from runtime.settings import EdgeSettings
from schemas.message import Message
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset
from tests.disks import FailingDisk
from tests.ingest.conftest import WAIT_S, received
from tests.ingest.peers import EXPLICIT_LE, Peer

MR = (1, MR_IMAGE_STORAGE, (EXPLICIT_LE,))


class GatedLog:
    """The real log behind a gate: nothing is confirmed before the test says so, and as the test says."""

    def __init__(self, log: LocalPublisher) -> None:
        self._log = log
        self.published: list[Future[Position]] = []
        self.arrived = threading.Semaphore(0)
        #: Not copied: a buffer that is reused too early shows here.
        self.values: list[bytes | bytearray | memoryview] = []

    def publish(self, message: Message) -> Future[Position]:
        self.values.append(message.value)
        self._log.publish(message).result(WAIT_S)
        self.published.append(Future())
        self.arrived.release()
        return self.published[-1]

    def close(self) -> None:
        self._log.close()


class GatedEdge:
    """An edge of this process whose log and disk the test holds in its hands."""

    def __init__(self, settings: EdgeSettings, *, is_gated: bool = True) -> None:
        clock = SystemClock()
        self.settings = settings
        self.disk = FailingDisk()
        log = LocalPublisher(settings.log_dir, writer="edge-gated", senders_write=True, disk=self.disk)
        self.log = GatedLog(log)
        rule = DiskRule(settings, clock, uncommitted_bytes=lambda: 0)
        intake = Intake(self.log if is_gated else log, settings, clock, rule, disk=self.disk)
        edge = Edge(settings, intake, clock)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: (edge.accept_until(self._stop, self.listener), edge.drain()))
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        self.log.close()
        self.listener.close()


@pytest.fixture
def gated_edge(tmp_path: Path) -> Iterator[GatedEdge]:
    edge = GatedEdge(EdgeSettings(data_dir=tmp_path, disk_reserve_bytes=0, ack_timeout_s=2.0, inline_max_bytes=65536))
    yield edge
    edge.close()


def send_one(edge: GatedEdge, peer: Peer, number: int, rows: int = 16) -> bytes:
    """Send an instance and wait until the log has it."""
    dataset = mr_dataset(number, rows=rows, columns=rows)
    sent = dataset_bytes(dataset)
    peer.send_store_command(MR_IMAGE_STORAGE, dataset.SOPInstanceUID)
    peer.send_dataset(sent)
    assert edge.log.arrived.acquire(timeout=WAIT_S)
    return sent


def test_no_success_before_the_log_confirms(gated_edge: GatedEdge) -> None:
    with Peer(gated_edge.port) as peer:
        assert peer.associate(MR)
        send_one(gated_edge, peer, 1)
        assert select.select([peer.socket], [], [], 0)[0] == []
        gated_edge.log.published[0].set_result(Position(stream="s", offset=0, next_offset=1))
        assert peer.read_response().status == 0


@pytest.mark.parametrize("error", [OutOfSpace("full"), Retryable("away")])
@pytest.mark.parametrize("rows", [16, 300])
def test_a_log_that_fails(gated_edge: GatedEdge, error: Exception, rows: int) -> None:
    with Peer(gated_edge.port) as peer:
        assert peer.associate(MR)
        send_one(gated_edge, peer, 1, rows)
        gated_edge.log.published[0].set_exception(error)
        assert peer.read_response().status == 0xA700
        segments = list(gated_edge.settings.archive_dir.rglob("*.tar"))
        # Out of space: no message names the segment. Otherwise one may still turn up, and must find it.
        assert len(segments) == (rows == 300 and not isinstance(error, OutOfSpace))


def test_a_log_that_never_answers_keeps_its_bytes(gated_edge: GatedEdge) -> None:
    """0xA700 after the acknowledgement's timeout; the buffer the log still reads is not written again."""
    with Peer(gated_edge.port) as peer:
        assert peer.associate(MR)
        first = send_one(gated_edge, peer, 1)
        assert peer.read_response().status == 0xA700
        second = send_one(gated_edge, peer, 2)
        gated_edge.log.published[1].set_result(Position(stream="s", offset=0, next_offset=1))
        assert peer.read_response().status == 0
        gated_edge.log.published[0].set_result(Position(stream="s", offset=0, next_offset=1))
    for value, sent in zip(gated_edge.log.values, (first, second), strict=True):
        assert bytes(value).endswith(sent)
    assert len(received(gated_edge.settings, 2)) == 2


@pytest.mark.parametrize("rows", [16, 300])
@pytest.mark.parametrize("space_bytes", [0, 1000, 5000])
def test_no_space_left(tmp_path: Path, rows: int, space_bytes: int) -> None:
    """0xA700 and nothing kept while the disk is full, whatever the instance's way; then it goes on."""
    edge = GatedEdge(EdgeSettings(data_dir=tmp_path, disk_reserve_bytes=0, inline_max_bytes=65536), is_gated=False)
    dataset = mr_dataset(1, rows=rows, columns=rows)
    sent = dataset_bytes(dataset)
    # The small one fits into the last size, the large one only begins to.
    expected = 0 if rows == 16 and space_bytes == 5000 else 0xA700
    try:
        with Peer(edge.port) as peer:
            assert peer.associate(MR)
            edge.disk.space_bytes = space_bytes
            assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, sent).status == expected
            edge.disk.space_bytes = None
            assert not list(tmp_path.rglob("*.part"))
            assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, sent).status == 0
    finally:
        edge.close()
    assert len(received(edge.settings, 2 if expected == 0 else 1)) > 0


def test_a_sync_that_fails_is_no_success(tmp_path: Path) -> None:
    edge = GatedEdge(EdgeSettings(data_dir=tmp_path, disk_reserve_bytes=0), is_gated=False)
    dataset = mr_dataset(1, rows=16, columns=16)
    try:
        with Peer(edge.port) as peer:
            assert peer.associate(MR)
            edge.disk.fails_sync = True
            assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0xA700
            edge.disk.fails_sync = False
            assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0
    finally:
        edge.close()


def test_a_disk_that_hangs_is_answered_by_others(tmp_path: Path) -> None:
    """The association's own thread writes and waits for the disk; 0xA700 comes in time all the same, and only once."""
    settings = EdgeSettings(data_dir=tmp_path, disk_reserve_bytes=0, ack_timeout_s=0.2)
    edge = GatedEdge(settings, is_gated=False)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert release.wait(WAIT_S)

    sent = [mr_dataset(number, rows=16, columns=16) for number in (1, 2)]
    try:
        with Peer(edge.port) as peer, Peer(edge.port) as other:
            assert peer.associate(MR)
            assert other.associate(MR)
            edge.disk.before_sync = hold
            assert peer.store(MR_IMAGE_STORAGE, sent[0].SOPInstanceUID, dataset_bytes(sent[0])).status == 0xA700
            assert held.is_set()
            assert other.store(MR_IMAGE_STORAGE, sent[1].SOPInstanceUID, dataset_bytes(sent[1])).status == 0xA700
            release.set()
            assert peer.store(MR_IMAGE_STORAGE, sent[0].SOPInstanceUID, dataset_bytes(sent[0])).status == 0
            assert not peer.is_answered(within_s=0.05)
    finally:
        release.set()
        edge.close()
    assert len(received(settings, 3)) == 3
