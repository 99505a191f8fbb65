"""A real edge on a real log, on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archive.layout import path_of
from broker.local import LocalConsumer
from broker.log import Taken
from ingest.edge import run_edge
from runtime.settings import EdgeSettings
from schemas.message import Lane, Message
from tests.ingest.peers import Peer

WAIT_S = 20.0
StartEdge = Callable[..., "RunningEdge"]


@dataclass(slots=True)
class RunningEdge:
    """An edge on a thread of this process, and what its log holds."""

    settings: EdgeSettings
    port: int
    stop: threading.Event
    thread: threading.Thread

    def peer(self, source: str = "127.0.0.1") -> Peer:
        return Peer(self.port, source=source)

    def received(self, count: int = 1) -> list[Message]:
        """The next `count` messages of the log."""
        return received(self.settings, count)

    def drain(self) -> None:
        self.stop.set()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


def received(settings: EdgeSettings, count: int) -> list[Message]:
    """Messages from the beginning of the log; waits until there are `count`, fails if there are more."""
    consumer = LocalConsumer(settings.log_dir, group="tests", lane=Lane.ROUTINE)
    taken: list[Taken] = []
    try:
        while len(taken) < count:
            more = consumer.take(max_messages=1000, max_bytes=1 << 30, wait_s=WAIT_S)
            assert more, f"{len(taken)} messages instead of {count}"
            taken += more
        taken += consumer.take(max_messages=1000, max_bytes=1 << 30, wait_s=0)
        assert len(taken) == count
        return [one.message for one in taken]
    finally:
        consumer.close()


def large_file(settings: EdgeSettings, message: Message) -> bytes:
    """The Part-10 file that a claim check names."""
    attributes = message.attributes
    path = path_of(settings.archive_dir, attributes.data_ref)
    return path.read_bytes()[attributes.data_offset : attributes.data_offset + attributes.size_bytes]


@pytest.fixture
def start_edge(tmp_path: Path) -> Iterator[StartEdge]:
    """Start an edge with these settings; all are stopped at the end."""
    running: list[RunningEdge] = []

    def start(**options: object) -> RunningEdge:
        given = {"data_dir": tmp_path / "data", "disk_reserve_bytes": 0, "dicom_port": 11112, **options}
        settings = EdgeSettings(**given)  # type: ignore[arg-type]
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        stop, ready = threading.Event(), threading.Event()
        thread = threading.Thread(target=run_edge, args=(settings, listener, stop, ready.set))
        thread.start()
        assert ready.wait(WAIT_S)
        running.append(RunningEdge(settings, listener.getsockname()[1], stop, thread))
        listeners.append(listener)
        return running[-1]

    listeners: list[socket.socket] = []
    yield start
    for one in running:
        one.drain()
    for listener in listeners:
        listener.close()


@pytest.fixture
def running_edge(start_edge: StartEdge) -> RunningEdge:
    return start_edge()
