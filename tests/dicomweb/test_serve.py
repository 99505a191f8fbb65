"""The real server on a real socket: streaming, back-pressure, draining, and the sentences of a wrong setting."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dicomweb.access import AccessMiddleware
from dicomweb.serve import bind_http, run_web, serve_app
from dicomweb.waiting import StreamedAnswer, WaitingBodies
from runtime.errors import Misconfigured
from runtime.settings import WebSettings
from tests.datasets import ROOT, mr_dataset
from tests.dicomweb.library import Library
from tests.waiting import until

DEADLINE_S = 10.0
BEGINNINGS = (b"", b"GET / HTTP/1.1\r\nHost: 127", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(True)
    return listener


Serve = Callable[[socket.socket, threading.Event, Callable[[], None]], None]


@contextmanager
def serving(serve: Serve) -> Iterator[tuple[int, threading.Event]]:
    """Run `serve` in a thread until the block ends; gives the port and the event that stops it."""
    listener, stop, ready = listening(), threading.Event(), threading.Event()
    thread = threading.Thread(target=serve, args=(listener, stop, ready.set))
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        yield listener.getsockname()[1], stop
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        listener.close()
    assert not thread.is_alive()


def served(app: ASGIApp, **settings: float) -> Serve:
    return lambda *given: serve_app(app, *given, settings=WebSettings(**settings))  # type: ignore[arg-type]


def application(endpoint: Callable[[Request], object]) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)])  # type: ignore[arg-type]


def test_the_web_role_answers_and_stops(library: Library) -> None:
    library.add(mr_dataset(1))

    def serve(listener: socket.socket, stop: threading.Event, ready: Callable[[], None]) -> None:
        run_web(library.settings(), listener, stop, ready, is_ready=lambda: True)

    with serving(serve) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", f"/dicom-web/studies/{ROOT}.1/metadata")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200
        assert f"http://127.0.0.1:{port}/dicom-web/studies/".encode() in body
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def test_an_answer_reaches_the_client_before_it_is_complete() -> None:
    release = threading.Event()

    async def endpoint(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.to_thread(release.wait, DEADLINE_S)
            yield b"second"

        return StreamingResponse(body())

    with serving(
        lambda *given: serve_app(application(endpoint), *given, settings=WebSettings(shutdown_timeout_s=5))
    ) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.read(5) == b"first"
        release.set()
        assert answer.read() == b"second"
        connection.close()


def test_a_client_that_does_not_read_holds_the_server_back() -> None:
    produced = 0
    piece = b"x" * (1 << 20)
    pieces = 512

    async def endpoint(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            nonlocal produced
            for _ in range(pieces):
                produced += 1
                yield piece

        return StreamingResponse(body())

    with serving(
        lambda *given: serve_app(application(endpoint), *given, settings=WebSettings(shutdown_timeout_s=0.1))
    ) as (port, _):
        slow = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(16)
        held = settled(lambda: produced)
        assert held < 64, f"{held} MiB were produced for a client that reads nothing"
        received = 0
        while received < pieces << 20:
            received += len(slow.recv(1 << 20))
        assert produced == pieces
        slow.close()


def settled(value: Callable[[], int]) -> int:
    """`value` once it has stopped growing over many turns of the other threads."""
    deadline = time.monotonic() + DEADLINE_S
    last, unchanged = value(), 0
    while unchanged < 50 and time.monotonic() < deadline:
        threading.Event().wait(0.005)
        now = value()
        unchanged, last = (unchanged + 1, last) if now == last else (0, now)
    return last


def test_an_answer_that_fails_halfway_is_broken_off() -> None:
    async def endpoint(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            raise FileNotFoundError

        return StreamingResponse(body())

    app = AccessMiddleware(application(endpoint), hosts=None, tenant="default")
    with serving(served(app, shutdown_timeout_s=5)) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()
        connection.close()


def test_stopping_finishes_what_is_under_way() -> None:
    begun, stopping = threading.Event(), threading.Event()

    async def endpoint(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun "
            begun.set()
            await asyncio.to_thread(stopping.wait, DEADLINE_S)
            for _ in range(20):  # a server that does not wait is gone by then
                await asyncio.sleep(0.01)
            yield b"finished"

        return StreamingResponse(body())

    def serve(listener: socket.socket, stop: threading.Event, ready: Callable[[], None]) -> None:
        serve_app(
            application(endpoint),
            listener,
            stop,
            ready,
            settings=WebSettings(shutdown_timeout_s=DEADLINE_S),
            close_timeout_s=0.05,
        )

    with serving(serve) as (port, stop):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/")
        assert begun.wait(DEADLINE_S)
        stop.set()
        stopping.set()
        assert connection.getresponse().read() == b"begun finished"
        connection.close()


def test_stopping_does_not_wait_for_ever() -> None:
    begun, release = threading.Event(), threading.Event()

    async def endpoint(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            begun.set()
            while not release.is_set():
                await asyncio.sleep(0.01)
                yield b"."

        return StreamingResponse(body())

    with serving(
        lambda *given: serve_app(application(endpoint), *given, settings=WebSettings(shutdown_timeout_s=0.2))
    ) as (port, stop):
        reader = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(DEADLINE_S)
        stop.set()
        while reader.recv(1 << 16):
            pass
        reader.close()
    release.set()


def test_the_socket_is_on_loopback_and_listens() -> None:
    with (
        bind_http(WebSettings(http_port=free_port())) as listener,
        socket.create_connection(listener.getsockname(), timeout=DEADLINE_S) as peer,
    ):
        assert peer.getpeername()[0] == "127.0.0.1"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_one_sentence() -> None:
    with listening() as occupant:
        port = occupant.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"Port {port} on 127.0.0.1 is in use"):
            bind_http(WebSettings(http_port=port))


@pytest.mark.parametrize(("address", "sentence"), [("0.0.0.0", "insecure-demo"), ("192.0.2.1", "insecure-demo")])
def test_others_may_not_reach_us_unprotected(address: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        bind_http(WebSettings(bind_address=address))


def test_a_foreign_address_is_one_sentence() -> None:
    with pytest.raises(Misconfigured, match="not one of this machine's"):
        bind_http(WebSettings(bind_address="192.0.2.1", insecure_demo=True))


def test_an_empty_archive_is_served(tmp_path: Path) -> None:
    settings = WebSettings(data_dir=tmp_path)

    def serve(listener: socket.socket, stop: threading.Event, ready: Callable[[], None]) -> None:
        run_web(settings, listener, stop, ready)

    with serving(serve) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/dicom-web/studies")
        assert connection.getresponse().read() == b"[]"
        connection.close()


def test_idle_connections_do_not_keep_others_out() -> None:
    """Browsers keep connections; so do strangers, with half a request or none."""

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    with serving(served(application(endpoint), shutdown_timeout_s=0.2)) as (port, _), ExitStack() as stack:
        for number in range(600):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            idle.sendall(
                (b"", b"GET / HTTP/1.1\r\nHost: 127", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")[number % 3]
            )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"here"
        connection.close()


def test_a_connection_without_a_request_is_closed() -> None:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    with serving(served(application(endpoint), http_idle_timeout_s=1, shutdown_timeout_s=0.2)) as (port, _):
        for said in BEGINNINGS:
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as idle:
                idle.sendall(said)
                while idle.recv(65536):
                    pass


def test_an_answer_that_is_not_read_is_broken_off() -> None:
    bodies = WaitingBodies(1 << 30)

    async def endpoint(request: Request) -> StreamedAnswer:
        async def body() -> AsyncIterator[bytes]:
            async for piece in bodies.pieces(bytes(1 << 27)):
                yield piece

        return StreamedAnswer(body())

    app = AccessMiddleware(application(endpoint), hosts=None, tenant="default", send_timeout_s=0.3)
    with (
        serving(served(app, shutdown_timeout_s=0.2)) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(16)
        assert bodies.size_bytes
        until(lambda: bodies.size_bytes == 0, timeout_s=DEADLINE_S, what="the release of the body")


@pytest.mark.parametrize("path", ["/", "/list", "/dicom-web/search/studies"])
def test_a_form_that_never_comes_whole_is_given_up(library: Library, path: str) -> None:
    settings = library.settings().model_copy(update={"http_idle_timeout_s": 0.3})

    def serve(listener: socket.socket, stop: threading.Event, ready: Callable[[], None]) -> None:
        run_web(settings, listener, stop, ready)

    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with serving(serve) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as slow:
        slow.sendall(f"{head}Content-Length: 100\r\n\r\na".encode())
        answer = b"".join(iter(lambda: slow.recv(65536), b""))  # until the server closes
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come" in answer
