"""The edge process: accepts on a listening socket it is given, a thread for each association, and drains on stop."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from typing import Final, cast

from ingest.admission import Seats
from ingest.dimse.association import Association
from ingest.intake import Intake
from ingest.opening import opened_intake
from runtime.addresses import is_loopback
from runtime.clock import Clock, SystemClock
from runtime.errors import Misconfigured
from runtime.lifecycle import Deadline
from runtime.logs import get_logger
from runtime.settings import EdgeSettings

#: How soon a stop is noticed while nobody calls.
_ACCEPT_WAIT_S: Final = 0.1
#: How often associations are asked whether an answer is overdue.
_OVERDUE_CHECK_S: Final = 0.5
_BACKLOG: Final = 256


def bind_dicom(settings: EdgeSettings) -> socket.socket:
    """The listening socket that edge processes inherit.

    Raises:
        Misconfigured: the port is taken or privileged, or the address is not ours or may not be used. Says which.
    """
    address, port = settings.bind_address, settings.dicom_port
    _check_address(settings)
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise Misconfigured(f"SANSFILM_BIND_ADDRESS {address} cannot be resolved") from error
    listener = socket.socket(family, kind, protocol)
    try:
        _check_unoccupied(family, name, address, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Misconfigured(_bind_sentence(error, address, port)) from error
    except Misconfigured:
        listener.close()
        raise
    return listener


def run_edge(settings: EdgeSettings, listener: socket.socket, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Receive until `stop` is set, then drain and close. Several processes may run this on one inherited socket.

    `ready` is called when associations are accepted. The listener stays open: it belongs to whoever bound it.
    """
    clock = SystemClock()
    with opened_intake(settings, clock, role="edge") as intake:
        edge = Edge(settings, intake, clock)
        ready()
        edge.accept_until(stop, listener)
        edge.drain()


class Edge:
    """The associations of one process."""

    def __init__(self, settings: EdgeSettings, intake: Intake, clock: Clock) -> None:
        self._settings = settings
        self._intake = intake
        self._clock = clock
        self._seats = Seats(settings)
        self._threads: set[threading.Thread] = set()
        self._log = get_logger()
        self._checked_s = float("-inf")

    def accept_until(self, stop: threading.Event, listener: socket.socket) -> None:
        """Accept connections until `stop` is set, and meanwhile answer what is overdue."""
        listener.settimeout(_ACCEPT_WAIT_S)
        while not stop.is_set():
            self._answer_overdue()
            try:
                connected, name = listener.accept()
            except (TimeoutError, BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._log.error("accept_failed", errno=error.errno)
                stop.wait(_ACCEPT_WAIT_S)
                continue
            self._start(connected, str(name[0]))

    def drain(self) -> None:
        """Let every association finish its instance; what is still there at the deadline is cut."""
        deadline = Deadline(self._settings.shutdown_timeout_s * 0.8, self._clock.monotonic_s)
        for seat in self._seats.present():
            cast(Association, seat).drain()
        self._join(deadline)
        for seat in self._seats.present():
            seat.evict()
        self._join(Deadline(self._settings.shutdown_timeout_s * 0.1, self._clock.monotonic_s))

    def _answer_overdue(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_s >= _OVERDUE_CHECK_S:
            self._checked_s = now_s
            for seat in self._seats.present():
                cast(Association, seat).answer_overdue()

    def _start(self, connected: socket.socket, address: str) -> None:
        try:
            association = Association(
                connected,
                address,
                intake=self._intake,
                seats=self._seats,
                settings=self._settings,
                clock=self._clock,
            )
        except OSError:  # gone before it was greeted
            connected.close()
            return
        self._seats.enter(association)
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        thread = threading.Thread(target=association.run, name="association", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the machine has no thread left
            self._log.error("thread_refused")
            self._threads.discard(thread)
            association.close()

    def _join(self, deadline: Deadline) -> None:
        for thread in self._threads:
            thread.join(deadline.remaining_s())


def _check_address(settings: EdgeSettings) -> None:
    if settings.insecure_demo or is_loopback(settings.bind_address):
        return
    raise Misconfigured(
        f"SANSFILM_BIND_ADDRESS {settings.bind_address} is not loopback, and associations are neither encrypted nor "
        "authenticated: set SANSFILM_INSECURE_DEMO=true to accept that"
    )


def _check_unoccupied(family: socket.AddressFamily, name: tuple[object, ...], address: str, port: int) -> None:
    """Somebody who listens with SO_REUSEPORT, or on all addresses, would share our calls without an error: ask."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(name) == 0:
            raise Misconfigured(_IN_USE.format(address=address, port=port))


_IN_USE = "port {port} on {address} is in use: stop its owner or set SANSFILM_DICOM_PORT"


def _bind_sentence(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return _IN_USE.format(address=address, port=port)
    if error.errno == errno.EACCES:
        return f"port {port} is privileged: set SANSFILM_DICOM_PORT to 1024 or more"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine: set SANSFILM_BIND_ADDRESS"
    return f"cannot listen on {address} port {port}: {error.strerror}"
