"""The role: composes the rooms for each lane and runs them until told to stop."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from archive.catalog import Equal, OnConflict
from archive.compare import comparer, versions_equal
from archive.journal import conflict_writer, same_writer
from archive.layout import path_of
from archive.opening import is_embedded, open_catalog_reader, open_store, open_worker_catalog
from archive.segment_store import SegmentStore
from archive.sql_catalog import SqlCatalog
from archive.unfinished import commit_unfinished, require_empty, unfinished
from broker.log import Taken
from broker.opening import open_consumer
from instances.decode import IsolatedDecoder
from runtime.clock import Clock, SystemClock
from runtime.logs import get_logger
from runtime.settings import GIB, WorkerSettings
from schemas.message import Lane
from segments.disk import Disk, SystemDisk
from workers.attempts import AttemptBook, FilePages
from workers.batches import Batches, BatchLimits
from workers.claims import Claims
from workers.committing import Committer
from workers.decisions import Decider
from workers.isolation import Isolation
from workers.judging import Judging
from workers.lanes import LaneLoop
from workers.pipeline import Batch, Pipeline
from workers.preparation import Policy

#: Comparing re-encoded instances decodes foreign streams in a child process: seconds and bytes it may take.
_COMPARE_TIMEOUT_S, _COMPARE_MEMORY_MAX_BYTES = 60.0, 2 * GIB


def run_worker(settings: WorkerSettings, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Take from the log and commit to the archive until `stop` is set and the batches in flight are committed.

    Raises:
        Misconfigured: another worker has this folder, or the catalog is of another version or of another day.
        Exception: one lane failed; the others were stopped in order, and nothing is lost.
    """
    with ExitStack() as stack:
        rooms = _open_rooms(settings, stack)
        if is_embedded(settings):
            _finish_last_run(settings, rooms)
        committer = stack.enter_context(closing(Committer()))
        lanes = [_lane(lane, settings, rooms, committer, stack) for lane in settings.lanes]
        runners = stack.enter_context(ThreadPoolExecutor(len(lanes), "lane"))
        running = [runners.submit(_run, lane, stop) for lane in lanes]
        ready()
        wait(running)
    for lane_run in running:
        lane_run.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rooms:
    """What all lanes share."""

    disk: Disk
    clock: Clock
    store: SegmentStore
    catalog: SqlCatalog
    isolation: Isolation
    judging: Judging
    decider: Decider
    equal: Equal
    on_conflict: OnConflict


def _open_rooms(settings: WorkerSettings, stack: ExitStack) -> _Rooms:
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
    return _Rooms(
        disk=disk,
        clock=clock,
        store=store,
        catalog=catalog,
        isolation=Isolation(),
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
    )


def _finish_last_run(settings: WorkerSettings, rooms: _Rooms) -> None:
    """Commit what the last run put and did not commit; left alone where two starts died of it.

    Its messages come again from the log, where a killer is isolated.
    """
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


def _lane(lane: Lane, settings: WorkerSettings, rooms: _Rooms, committer: Committer, stack: ExitStack) -> LaneLoop:
    consumer = stack.enter_context(closing(open_consumer(settings, lane, disk=rooms.disk, clock=rooms.clock)))
    wait_s = {
        Lane.URGENT: settings.urgent_wait_s,
        Lane.ROUTINE: settings.routine_wait_s,
        Lane.BULK: settings.bulk_wait_s,
    }
    limits = BatchLimits(
        max_messages=settings.batch_max_messages, max_bytes=settings.batch_max_bytes, wait_s=wait_s[lane]
    )
    pipeline = Pipeline(
        consumer=consumer,
        hint=rooms.judging.hint,
        judge=rooms.judging.judge,
        # Of its own: a bulk batch is a second's work, and an urgent message must not wait behind it.
        threads=stack.enter_context(ThreadPoolExecutor(settings.worker_threads, f"prepare-{lane}")),
        store=rooms.store,
        catalog=rooms.catalog,
        equal=rooms.equal,
        on_conflict=rooms.on_conflict,
        consider=rooms.decider.consider,
        execute=rooms.decider.execute,
        on_same=None if is_embedded(settings) else same_writer(rooms.store, rooms.clock),
    )
    return LaneLoop(
        lane=lane,
        pipeline=pipeline,
        batches=Batches(consumer, limits, rooms.clock),
        book=AttemptBook(rooms.catalog if settings.kafka_bootstrap else FilePages(settings.run_dir, rooms.disk)),
        stream_of=_partition if settings.kafka_bootstrap else lambda _: lane.value,
        committer=committer,
        isolation=rooms.isolation,
        prepare_killer=rooms.judging.killer,
        release=(lambda batch: _release(rooms, batch)) if is_embedded(settings) else _leave_to_collector,
        retry_wait_max_s=settings.retry_wait_max_s,
    )


def _run(lane: LaneLoop, stop: threading.Event) -> None:
    try:
        lane.run(stop)
    finally:
        stop.set()  # a lane that fails takes the process down in order: the supervisor starts it again


def _partition(taken: Taken) -> str:
    """Partitions change hands, and with them the attempts at what is in them."""
    return taken.position.stream


def _release(rooms: _Rooms, batch: Batch) -> None:
    for claim in batch.idle_claims:
        if not rooms.catalog.has_committed(claim):
            rooms.store.delete(claim)


def _leave_to_collector(batch: Batch) -> None:
    """Another worker may be about to commit a claim check that this one rewrote: only the collector can know."""
