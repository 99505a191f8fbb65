"""Running the web application on granian inside this process, so that whoever kills the process kills everything."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Final

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from archive.opening import open_catalog_reader, open_store
from dicomweb.app import create_app
from dicomweb.machine import Machine
from dicomweb.status import own_metrics
from instances.decode import IsolatedDecoder
from runtime.addresses import is_loopback
from runtime.errors import Fatal, Misconfigured
from runtime.settings import WebSettings

BACKLOG: Final = 1024
_log = structlog.get_logger()


def bind_http(settings: WebSettings) -> socket.socket:
    """A listening socket on the address and port of the settings; the caller closes it.

    Raises:
        Misconfigured: the port is in use or forbidden, the address is not this machine's, or it is not loopback and
            the demonstration without protection was not asked for.
    """
    address, port = settings.bind_address, settings.http_port
    _check_closed(settings)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Against sockets in TIME_WAIT only: another listener on the port still makes bind fail.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Misconfigured(_sentence(error, address, port)) from error
    return listener


def run_web(
    settings: WebSettings,
    listener: socket.socket,
    stop: threading.Event,
    ready: Callable[[], None],
    extra_routes: Sequence[BaseRoute] = (),
    *,
    is_ready: Callable[[], bool] = lambda: True,
    collect_metrics: Callable[[], bytes] = own_metrics,
) -> None:
    """Serve until `stop` is set, then finish the answers under way, for `shutdown_timeout_s` at most.

    Blocks; call it from the main thread or another. `ready` is called once requests are answered. `is_ready` and
    `collect_metrics` answer ``/health/ready`` and ``/metrics``, the latter with what `Machine` says added.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(closing(open_catalog_reader(settings)))
        store = stack.enter_context(closing(open_store(settings)))
        decoder = IsolatedDecoder(
            processes=settings.decode_processes,
            timeout_s=settings.decode_timeout_s,
            memory_max_bytes=settings.decode_memory_max_bytes,
        )
        stack.callback(decoder.close)
        machine = Machine(settings, reader)
        app = create_app(
            settings,
            reader,
            store,
            decoder,
            extra_routes=extra_routes,
            ready=is_ready,
            collect_metrics=lambda: collect_metrics() + machine.page(),
        )
        serve_app(app, listener, stop, ready, settings=settings)


def serve_app(
    app: ASGIApp,
    listener: socket.socket,
    stop: threading.Event,
    ready: Callable[[], None],
    *,
    settings: WebSettings,
    close_timeout_s: float = 2.0,
) -> None:
    """Serve `app` on `listener` until `stop` is set; see `run_web`.

    Answers get ``shutdown_timeout_s`` to end and are then broken off; connections get `close_timeout_s` after that.
    """
    asyncio.run(_serve(app, listener, stop, ready, settings, close_timeout_s))


async def _serve(
    app: ASGIApp,
    listener: socket.socket,
    stop: threading.Event,
    ready: Callable[[], None],
    settings: WebSettings,
    close_timeout_s: float,
) -> None:
    requests = _Requests(app)
    server = _Listening(requests, listener, settings)
    serving = asyncio.create_task(server.serve())
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    waiter = threading.Thread(target=_wait, args=(stop, loop, stopped), daemon=True, name="web-stop")
    waiter.start()
    started = asyncio.create_task(server.started.wait())
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
        raise Fatal("the web server ended before it answered anything")
    ready()
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await requests.drained(settings.shutdown_timeout_s, close_timeout_s)
    server.signal_handler_interrupt()  # type: ignore[no-untyped-call]
    await asyncio.wait({serving}, timeout=close_timeout_s)
    if serving.done():
        serving.result()


def _wait(stop: threading.Event, loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    stop.wait()
    loop.call_soon_threadsafe(stopped.set)


class _Listening(Server):
    """granian on a socket that is already bound, as a supervisor hands it down."""

    def __init__(self, app: ASGIApp, listener: socket.socket, settings: WebSettings) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=settings.http_connections_max,
            # It also ends the wait for the next request of a kept connection.
            http1_settings=HTTP1Settings(header_read_timeout=round(1000 * settings.http_idle_timeout_s)),
            log_enabled=False,
        )
        self._listener = listener
        self.started = asyncio.Event()
        self.on_startup(self.started.set)

    def _init_shared_socket(self) -> None:
        listener = self._listener.dup()
        listener.setblocking(False)
        self._shd = SocketHolder(listener.detach(), False, BACKLOG)  # type: ignore[call-arg,assignment]  # granian's stub is stale


class _Requests:
    """The requests under way, so that stopping can wait for them, and end those that take too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(self._answered(scope, receive, send))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        await task

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def drained(self, timeout_s: float, close_timeout_s: float) -> None:
        """Wait until no request is under way; what is after `timeout_s` is broken off.

        granian itself would wait for as long as a client cares to.
        """
        if not self._open:
            return
        _log.info("web_draining", requests=len(self._open))
        _, late = await asyncio.wait(self._open, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            _log.warning("requests_broken_off", requests=len(late))
            await asyncio.wait(late, timeout=close_timeout_s)


def _check_closed(settings: WebSettings) -> None:
    if settings.insecure_demo or is_loopback(settings.bind_address):
        return
    raise Misconfigured(
        f"SANSFILM_BIND_ADDRESS is {settings.bind_address}, which others can reach, and there is no TLS and no sign-in "
        "yet: use a loopback address, or accept the risk with --insecure-demo."
    )


def _sentence(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {address} is in use by another program: stop it, or set SANSFILM_HTTP_PORT."
    if error.errno == errno.EACCES:
        return f"Port {port} needs privileges this process does not have: set SANSFILM_HTTP_PORT to 1024 or above."
    return f"The address {address} is not one of this machine's: set SANSFILM_BIND_ADDRESS."
