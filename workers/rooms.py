"""What everything that judges and files shares: the store, the catalog, and who judges with them."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from archive.catalog import CatalogReader, Equal, OnConflict, OnSame
from archive.compare import comparer, versions_equal
from archive.journal import conflict_writer, same_writer
from archive.layout import path_of
from archive.opening import is_embedded, open_catalog_reader, open_store, open_worker_catalog
from archive.segment_store import SegmentStore
from archive.sql_catalog import SqlCatalog
from archive.unfinished import commit_unfinished, require_empty, unfinished
from instances.decode import IsolatedDecoder
from instances.equality import Decode
from runtime.clock import Clock, SystemClock
from runtime.logs import get_logger
from runtime.settings import GIB, WorkerSettings
from segments.disk import Disk, SystemDisk
from workers.attempts import AttemptBook, FilePages
from workers.claims import Claims
from workers.decisions import Decider
from workers.judging import Judging
from workers.preparation import Policy

#: Comparing re-encoded instances decodes foreign streams in a child process: seconds and bytes it may take.
_COMPARE_TIMEOUT_S, _COMPARE_MEMORY_MAX_BYTES = 60.0, 2 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """One archive, opened for filing."""

    disk: Disk
    clock: Clock
    store: SegmentStore
    catalog: SqlCatalog
    reader: CatalogReader
    claims: Claims
    judging: Judging
    decider: Decider
    equal: Equal
    on_conflict: OnConflict
    #: Where several processes put.
    on_same: OnSame | None
    #: Samples of compressed pixel data, decoded in a child process.
    decode: Decode


def open_rooms(settings: WorkerSettings, stack: ExitStack) -> Rooms:
    """The archive of these settings; `stack` closes it. Before it is filed into: `finish_last_run`.

    Raises:
        Misconfigured: another process has this folder, or the catalog is of another version or of another day.
    """
    disk, clock = SystemDisk(), SystemClock()
    disk.make_folder(settings.run_dir)
    store = stack.enter_context(closing(open_store(settings, disk=disk, clock=clock)))
    store.sweep()
    if is_embedded(settings) and not settings.catalog_path.exists():
        require_empty(store)
    catalog = stack.enter_context(closing(open_worker_catalog(settings, clock=clock)))
    decoder = stack.enter_context(
        closing(IsolatedDecoder(processes=1, timeout_s=_COMPARE_TIMEOUT_S, memory_max_bytes=_COMPARE_MEMORY_MAX_BYTES))
    )
    policy = Policy(transcode=settings.transcode, transcode_max_bytes=settings.transcode_max_bytes)
    equal, on_conflict = versions_equal(comparer(store, decoder.samples)), conflict_writer(store, clock)
    reader = stack.enter_context(closing(open_catalog_reader(settings)))
    claims = Claims(
        store=store,
        memory_max_bytes=settings.transcode_max_bytes,
        spool_dir=settings.run_dir,
        file_of=None if settings.store_url else partial(path_of, settings.archive_dir),
    )
    return Rooms(
        disk=disk,
        clock=clock,
        store=store,
        catalog=catalog,
        reader=reader,
        claims=claims,
        judging=Judging(
            claims=claims,
            catalog=catalog,
            reader=reader,
            policy=policy,
            can_rewrite=lambda size_bytes: _has_room_beside(settings, size_bytes),
        ),
        decider=Decider(claims=claims, store=store, catalog=catalog, reader=reader, policy=policy),
        equal=equal,
        on_conflict=on_conflict,
        on_same=None if is_embedded(settings) else same_writer(store, clock),
        decode=decoder.samples,
    )


def finish_last_run(settings: WorkerSettings, rooms: Rooms) -> None:
    """Where one process alone puts: commit what the last one put and did not commit; left alone where two starts died
    of it. Its messages come again from the log, where a killer is isolated.
    """
    if not is_embedded(settings):
        return
    found = unfinished(rooms.store, rooms.catalog, segments_max=settings.batch_max_messages)
    if not found:
        return
    book = AttemptBook(FilePages(settings.run_dir, rooms.disk))
    if book.begin("unfinished", found[-1]):
        get_logger().error("unfinished_segments_left", segments=len(found))
    else:
        commit_unfinished(rooms.store, rooms.catalog, found, equal=rooms.equal, on_conflict=rooms.on_conflict)
    book.done()


def _has_room_beside(settings: WorkerSettings, size_bytes: int) -> bool:
    """Whether a claim check may be written a second time, transcoded, before the first one goes.

    Without room it is filed where it lies: what the edge keeps back is for the log, and batches are always committed.
    Two batches are under way at most.
    """
    if settings.store_url:
        return True
    beside_bytes = 2 * max(settings.batch_max_bytes, size_bytes)
    return shutil.disk_usage(settings.archive_dir).free >= settings.disk_reserve_bytes / 2 + beside_bytes
