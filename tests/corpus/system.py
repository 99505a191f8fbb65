"""The product in one process: one worker on one folder, and for each tenant an edge on a real socket and STOW-RS.

Tenants are separate archives in one folder, so one worker serves every route and round.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from archive.catalog import KnownVersion, Scope
from archive.local_store import LocalSegmentStore
from archive.sql_reader import SqlCatalogReader, open_reader
from broker.local import LocalPublisher, log_usage
from dicomweb.app import create_app
from ingest.admission import DiskRule
from ingest.edge import run_edge
from ingest.intake import Intake
from ingest.stow import stow_routes
from instances.decode import IsolatedDecoder
from runtime.clock import SystemClock
from runtime.settings import EdgeSettings, WebSettings, WorkerSettings
from schemas.record import InstanceRecord
from tests.waiting import until
from workers.worker import run_worker

BASE = "http://127.0.0.1:8080"
_WAIT_S = 60.0


@dataclass(slots=True)
class Running:
    """Everything a route or a check needs."""

    folder: Path
    reader: SqlCatalogReader
    store: LocalSegmentStore
    decoder: IsolatedDecoder
    _stack: ExitStack
    _ports: dict[str, int] = field(default_factory=dict)
    _stow: dict[str, Starlette] = field(default_factory=dict)

    def port(self, tenant: str) -> int:
        """Where the tenant's edge accepts associations; started when first asked for."""
        if tenant not in self._ports:
            settings = EdgeSettings(data_dir=self.folder, tenant=tenant, disk_reserve_bytes=0)
            listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            self._stack.enter_context(_thread(lambda stop, ready: run_edge(settings, listener, stop, ready)))
            self._ports[tenant] = listener.getsockname()[1]
        return self._ports[tenant]

    def stow(self, tenant: str) -> Starlette:
        """The tenant's STOW-RS, as the web process mounts it."""
        if tenant not in self._stow:
            settings, clock = WebSettings(data_dir=self.folder, tenant=tenant, disk_reserve_bytes=0), SystemClock()
            publisher = LocalPublisher(settings.log_dir, writer=f"web-{clock.new_id()}")
            self._stack.enter_context(closing(publisher))
            intake = Intake(publisher, settings, clock, DiskRule(settings, clock, uncommitted_bytes=lambda: 0))
            self._stow[tenant] = create_app(
                settings, self.reader, self.store, self.decoder, extra_routes=stow_routes(intake, settings, clock)
            )
        return self._stow[tenant]

    def client(self, app: Starlette | None = None) -> httpx.AsyncClient:
        """A client of the web application."""
        settings = WebSettings(data_dir=self.folder)
        app = app or create_app(settings, self.reader, self.store, self.decoder)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE, timeout=_WAIT_S)

    def wait_drained(self) -> None:
        """Until everything acknowledged is committed."""
        log_dir = WorkerSettings(data_dir=self.folder).log_dir
        until(lambda: log_usage(log_dir).uncommitted_bytes == 0, timeout_s=_WAIT_S, what="an empty log")

    def versions(self, tenant: str, sop_instance_uid: str) -> Sequence[tuple[KnownVersion, InstanceRecord]]:
        return self.reader.versions(Scope(principal="test", tenant=tenant), sop_instance_uid)

    def quarantined(self, tenant: str) -> Sequence[Mapping[str, Any]]:
        return self.reader.quarantined(Scope(principal="test", tenant=tenant))

    def counters(self, tenant: str) -> Mapping[str, int]:
        return self.reader.counters(tenant)


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """The product on `folder`; stopped in order at the end: edges drain, then the worker, then the readers close."""
    worker = WorkerSettings(data_dir=folder, routine_wait_s=0.05)
    decoder = IsolatedDecoder(processes=1, timeout_s=30, memory_max_bytes=2 << 30)
    with (
        closing(decoder),
        closing(open_reader(worker.catalog_path)) as reader,
        closing(LocalSegmentStore(worker.archive_dir)) as store,
        _thread(lambda stop, ready: run_worker(worker, stop, ready)),
        ExitStack() as stack,
    ):
        yield Running(folder, reader, store, decoder, stack)


@contextmanager
def _thread(body: Any) -> Iterator[None]:
    """Run `body(stop, ready)` on a thread from its readiness until the context ends."""
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=body, args=(stop, ready.set))
    thread.start()
    assert ready.wait(_WAIT_S)
    try:
        yield
    finally:
        stop.set()
        thread.join(_WAIT_S)
    assert not thread.is_alive()
