"""The archive of a data folder, opened for reading; and the way an operator's decision takes to its worker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from archive.catalog import CatalogReader, Scope
from archive.opening import is_embedded, open_catalog_reader, open_store
from archive.segment_store import SegmentStore
from archive.unfinished import require_empty
from broker.opening import open_publisher, waiting_messages
from cli.access import note_access, user_name
from cli.folder import is_locked
from runtime.clock import SystemClock, rfc3339
from runtime.errors import Misconfigured, Retryable
from runtime.settings import CommonSettings, load_settings
from schemas.decisions import Decision, encode_decision
from schemas.message import DECISION_MADE, Lane, Message, MessageAttributes
from segments.checksum import crc32c_hex

_POLL_S = 0.05
_PUBLISH_TIMEOUT_S = 30.0


class NotApplied(Retryable):
    """The decision is durable in the log, and no worker has executed it yet; it will."""


class Place:
    """What a command reads of one data folder and tenant. Close it.

    Raises:
        Misconfigured: there is no data folder; or, unless `without_catalog` is allowed, its catalog is missing and its
            archive is not empty: every answer would be that there is nothing.
    """

    def __init__(self, settings: CommonSettings, *, without_catalog: bool = False) -> None:
        if not settings.data_dir.is_dir():
            raise Misconfigured(f"there is no data folder {settings.data_dir}: set SANSFILM_DATA_DIR or --data-dir")
        if not without_catalog:
            require_catalog(settings)
        self.settings = settings
        self.scope = Scope(principal=user_name(), tenant=settings.tenant)
        self.reader: CatalogReader = open_catalog_reader(settings)
        self._store: SegmentStore | None = None

    @property
    def store(self) -> SegmentStore:
        """The archive's segments."""
        if self._store is None:
            self._store = open_store(self.settings)
        return self._store

    def note(self, service: str, uid: str = "") -> None:
        """Write the access event of what is read now."""
        note_access(self.settings.data_dir, service=service, tenant=self.scope.tenant, uid=uid)

    def decide(self, decision: Decision, applied: Callable[[], bool], *, wait_s: float) -> bool:
        """Publish `decision` durably, then wait until `applied`; False if the worker executed it without that effect.

        Raises:
            NotApplied: not within `wait_s`; nothing is lost.
            Retryable: the log took nothing; run the command again.
        """
        self._publish(decision)
        deadline_s = time.monotonic() + wait_s
        while True:
            executed = self._urgent_messages() == 0  # asked first: effects come before positions
            if applied():
                return True
            if executed:
                return False
            if time.monotonic() >= deadline_s:
                raise NotApplied(self._why_not_applied(wait_s))
            time.sleep(_POLL_S)

    def close(self) -> None:
        self.reader.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish(self, decision: Decision) -> None:
        clock = SystemClock()
        value = encode_decision(decision)
        attributes = MessageAttributes(
            id=clock.new_id(),
            type=DECISION_MADE,
            source=f"/cli/{socket.gethostname()}/{user_name()}",
            time=rfc3339(clock.now()),
            tenant=decision.tenant,
            lane=Lane.URGENT,
            size_bytes=len(value),
            crc32c=crc32c_hex([value]),
        )
        publisher = open_publisher(self.settings, writer=f"cli-{clock.new_id()}")
        try:
            publisher.publish(Message(attributes=attributes, value=value)).result(_PUBLISH_TIMEOUT_S)
        finally:
            publisher.close()

    def _urgent_messages(self) -> int:
        """How much waits in the lane that decisions travel in."""
        return waiting_messages(self.settings)[Lane.URGENT]

    def _why_not_applied(self, wait_s: float) -> str:
        if is_locked(self.settings.data_dir):
            return f"the decision is recorded but was not executed within {wait_s:g} s; see sansfilm status"
        return "the decision is recorded and will be executed when sansfilm up runs on this folder"


def open_place(data_dir: Path | None, tenant: str | None, *, without_catalog: bool = False) -> Place:
    """The place that flags and settings name; see `Place`."""
    return Place(load_settings(CommonSettings, data_dir=data_dir, tenant=tenant), without_catalog=without_catalog)


def require_catalog(settings: CommonSettings) -> None:
    """Raises Misconfigured if the catalog of an embedded archive is missing and the archive is not empty."""
    if is_embedded(settings) and not settings.catalog_path.exists():
        with closing(open_store(settings)) as store:
            require_empty(store)
