"""STOW-RS over real HTTP: clients that lie about lengths, stall, leave, or send more than memory should hold."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from broker.local import LocalPublisher
from dicomweb.serve import serve_app
from ingest.admission import DiskRule
from ingest.intake import Intake
from ingest.stow import stow_routes
from runtime.clock import SystemClock
from runtime.settings import MIB, EdgeSettings, WebSettings
from tests.datasets import mr_dataset, part10
from tests.ingest.conftest import WAIT_S, large_file, received
from tests.ingest.test_stow import BOUNDARY, MULTIPART, multipart
from tests.waiting import until


@dataclass(slots=True)
class HttpStow:
    settings: EdgeSettings
    port: int

    def request(self, body: bytes, declared_bytes: int, *, source: str = "127.0.0.1") -> socket.socket:
        """Send a request that says it has `declared_bytes`; the connection stays open."""
        head = f"POST /studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\n"
        client = socket.create_connection(("127.0.0.1", self.port), WAIT_S, source_address=(source, 0))
        client.sendall(f"{head}Content-Length: {declared_bytes}\r\n\r\n".encode() + body)
        return client

    def files(self) -> list[Path]:
        return [path for path in self.settings.archive_dir.rglob("*") if path.is_file()]


@pytest.fixture
def http_stow(tmp_path: Path) -> Iterator[HttpStow]:
    settings = EdgeSettings(
        data_dir=tmp_path,
        disk_reserve_bytes=0,
        idle_timeout_s=1.0,
        inline_max_bytes=65536,
        associations_max=3,
        associations_per_caller_max=2,
    )
    clock = SystemClock()
    publisher = LocalPublisher(settings.log_dir, writer="web-0")
    intake = Intake(publisher, settings, clock, DiskRule(settings, clock, uncommitted_bytes=lambda: 0), role="web")
    app = Starlette(routes=stow_routes(intake, settings, clock))
    stop, ready = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(
            target=serve_app,
            args=(app, listener, stop, ready.set),
            kwargs={"settings": WebSettings(shutdown_timeout_s=5)},
        )
        thread.start()
        assert ready.wait(WAIT_S)
        yield HttpStow(settings, listener.getsockname()[1])
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()
    publisher.close()


def answer(client: socket.socket) -> int:
    """The status of the answer; 0 if there is none."""
    with client:
        data = b""
        while b"\r\n" not in data:
            more = client.recv(4096)
            if not more:
                return 0
            data += more
        return int(data.split()[1])


def test_a_length_that_promises_more(http_stow: HttpStow) -> None:
    """Who leaves is forgotten; who stalls is told. Neither leaves half an instance."""
    body = multipart([part10(mr_dataset(1, rows=600, columns=600))], closed=False)[:-1000]
    stalled = http_stow.request(body, 10 * len(body))
    leaving = http_stow.request(body, 10 * len(body))
    until(lambda: len(http_stow.files()) == 2)
    leaving.close()
    assert answer(stalled) == 408
    until(lambda: not http_stow.files())
    assert received(http_stow.settings, 0) == []


def test_a_length_that_promises_less(http_stow: HttpStow) -> None:
    body = multipart([part10(mr_dataset(1)), part10(mr_dataset(2))])
    assert answer(http_stow.request(body, len(body) - 20)) == 400
    assert received(http_stow.settings, 1)[0].attributes.sop_instance_uid == mr_dataset(1).SOPInstanceUID


def test_requests_at_one_time_are_bounded(http_stow: HttpStow) -> None:
    """Two of one address, three in all."""
    body = multipart([part10(mr_dataset(1, rows=600, columns=600))], closed=False)[:-1000]
    whole = multipart([part10(mr_dataset(2))])
    with ExitStack() as stack:
        for count in (1, 2):
            stack.enter_context(http_stow.request(body, 10 * len(body)))
            until(lambda count=count: len(http_stow.files()) == count)  # type: ignore[misc]
        assert answer(http_stow.request(whole, len(whole))) == 503
        assert answer(http_stow.request(whole, len(whole), source="127.0.0.2")) == 200
        stack.enter_context(http_stow.request(body, 10 * len(body), source="127.0.0.2"))
        until(lambda: len(http_stow.files()) == 3)
        assert answer(http_stow.request(whole, len(whole), source="127.0.0.3")) == 503


def test_memory_is_bounded(http_stow: HttpStow, peak_memory: Callable[[], int]) -> None:
    """An instance of 96 MiB goes through the server (and this client) in a fraction of that."""
    head = part10(mr_dataset(1, rows=8, columns=8))
    zeros = bytes(256 * 1024)
    pixel_bytes = 96 * MIB

    def body() -> Iterator[bytes]:
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield head
        for _ in range(pixel_bytes // len(zeros)):
            yield zeros
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    response = httpx.post(
        f"http://127.0.0.1:{http_stow.port}/studies", content=body(), headers={"content-type": MULTIPART}, timeout=60
    )
    assert response.status_code == 200
    assert peak_memory() < 32 * MIB
    (message,) = received(http_stow.settings, 1)
    assert len(large_file(http_stow.settings, message)) == message.attributes.size_bytes > pixel_bytes


@pytest.fixture
def peak_memory() -> Callable[[], int]:
    """Bytes by which this process's peak of resident memory grew since the test began."""
    Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes() -> int:
        status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
        return int(status.split()[0]) * 1024

    before_bytes = peak_bytes()
    return lambda: peak_bytes() - before_bytes
