"""A worker on a real log, store and catalog in one folder, and what a test sends it and finds of it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from archive.catalog import KnownVersion, Scope
from archive.layout import path_of
from archive.local_store import LocalSegmentStore
from archive.sql_reader import open_reader
from broker.local import LocalPublisher, log_usage
from ingest.large import LargeInstance, LocalClaimCheck
from instances.part10 import split
from runtime.clock import SystemClock
from runtime.settings import WorkerSettings
from schemas.decisions import Decision, encode_decision
from schemas.message import DECISION_MADE, INSTANCE_RECEIVED, Lane, Message, MessageAttributes
from schemas.record import InstanceRecord
from segments.checksum import crc32c_hex
from segments.disk import SystemDisk
from tests.datasets import part10
from tests.waiting import until
from workers.worker import run_worker

TENANT = "default"
SCOPE = Scope(principal="test", tenant=TENANT)
WAIT_S = 30.0
_numbers = itertools.count(1)


def message(content: Dataset | bytes, **attributes: object) -> Message:
    """A message that carries its file."""
    file = content if isinstance(content, bytes) else part10(content)
    uid = str(getattr(content, "SOPInstanceUID", ""))
    return Message(attributes=_attributes(file, **{"sop_instance_uid": uid, **attributes}), value=file)


def decision(content: Decision | bytes) -> Message:
    """A message that carries an operator's decision."""
    value = content if isinstance(content, bytes) else encode_decision(content)
    return Message(attributes=_attributes(value, type=DECISION_MADE, source="/cli/test"), value=value)


def _attributes(value: bytes, **given: object) -> MessageAttributes:
    known: dict[str, object] = {
        "id": f"01900000-0000-7000-8000-{next(_numbers):012d}",
        "type": INSTANCE_RECEIVED,
        "source": "/edge/test",
        "time": "2026-03-01T08:15:00.000000Z",
        "tenant": TENANT,
        "lane": Lane.ROUTINE,
        "size_bytes": len(value),
        "crc32c": crc32c_hex([value]),
    }
    return MessageAttributes(**{**known, **given})  # type: ignore[arg-type]


class Pool:
    """One data folder; the worker runs only where a test says so."""

    def __init__(self, folder: Path, **settings: object) -> None:
        given = {"data_dir": folder, "routine_wait_s": 0.05, "retry_wait_max_s": 0.2, **settings}
        self.settings = WorkerSettings(**given)  # type: ignore[arg-type]
        self.reader = open_reader(self.settings.catalog_path)

    def publish(self, *messages: Message) -> None:
        """Append to the log, durable on return."""
        with closing(LocalPublisher(self.settings.log_dir, writer=f"edge-{SystemClock().new_id()}")) as publisher:
            for future in [publisher.publish(one) for one in messages]:
                future.result(WAIT_S)

    def claim(self, content: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> Message:
        """A message whose file the edge wrote as a claim check."""
        file = part10(content, transfer_syntax)
        large = LargeInstance(LocalClaimCheck(SystemDisk(), self.settings.archive_dir, TENANT, SystemClock()))
        large.write(file)
        attributes = _attributes(file, sop_instance_uid=str(content.SOPInstanceUID))
        return Message(attributes=large.finish(attributes))

    @contextmanager
    def working(self) -> Iterator[threading.Event]:
        """The worker, ready, until the context ends; gives what stops it."""
        stop, ready = threading.Event(), threading.Event()
        thread = threading.Thread(target=run_worker, args=(self.settings, stop, ready.set))
        thread.start()
        try:
            assert ready.wait(WAIT_S)
            yield stop
        finally:
            stop.set()
            thread.join(WAIT_S)
        assert not thread.is_alive()

    def work(self, *messages: Message) -> None:
        """Publish `messages`, and run a worker until the log is empty."""
        self.publish(*messages)
        with self.working():
            until(lambda: self.left() == 0, timeout_s=WAIT_S, what="an empty log")

    def life(self) -> BaseException | None:
        """One life of a worker, until the log is empty or it ends by itself; gives what it ended with."""
        stop, ended = threading.Event(), list[BaseException]()

        def live() -> None:
            try:
                run_worker(self.settings, stop, lambda: None)
            except BaseException as error:  # noqa: BLE001 - what a test looks at
                ended.append(error)

        thread = threading.Thread(target=live)
        thread.start()
        try:
            until(lambda: not thread.is_alive() or self.left() == 0, timeout_s=WAIT_S, what="an end, or an empty log")
        finally:
            stop.set()
            thread.join(WAIT_S)
        assert not thread.is_alive()
        return ended[0] if ended else None

    def left(self) -> int:
        """Messages not committed, in all lanes."""
        return sum(log_usage(self.settings.log_dir).uncommitted_messages.values())

    def versions(self, content: Dataset) -> Sequence[tuple[KnownVersion, InstanceRecord]]:
        return self.reader.versions(SCOPE, str(content.SOPInstanceUID))

    def counts(self) -> tuple[int, int, int]:
        """Instances, versions, open quarantine entries."""
        counters = self.reader.counters(TENANT)
        return counters.get("instances", 0), counters.get("versions", 0), len(self.quarantined())

    def quarantined(self) -> Sequence[Mapping[str, Any]]:
        return self.reader.quarantined(SCOPE)

    def segments(self) -> set[str]:
        """Keys of the segments there are, journal left out."""
        with closing(LocalSegmentStore(self.settings.archive_dir)) as store:
            return set(store.keys(f"{TENANT}/"))

    def path(self, key: str) -> Path:
        return path_of(self.settings.archive_dir, key)


def dataset_of(one: Message) -> bytes:
    """The data set without group 2 that a message carries."""
    return bytes(split(one.value)[1])
