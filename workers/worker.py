"""The role: composes the rooms for each lane and runs them until told to stop."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from archive.catalog import KnownVersion
from archive.compare import comparer, versions_equal
from archive.journal import conflict_writer
from archive.local_store import LocalSegmentStore
from archive.sql_catalog import SqlCatalog, open_catalog
from archive.sql_reader import open_reader
from broker.local.consumer import LocalConsumer
from broker.log import Taken
from instances.decode import IsolatedDecoder
from runtime import metrics
from runtime.clock import Clock, SystemClock
from runtime.logs import get_logger
from runtime.settings import GIB, WorkerSettings
from schemas.message import Lane
from schemas.reasons import KeptReason, QuarantineReason
from schemas.record import InstanceRecord, PlacedRecord, QuarantineRecord
from segments.disk import Disk, SystemDisk
from workers.attempts import AttemptBook
from workers.batches import Batches, BatchLimits
from workers.claims import claim_of, opened
from workers.decisions import Decider
from workers.lanes import LaneLoop
from workers.pipeline import Batch, Pipeline
from workers.preparation import Judged, KnownVersions, Policy, judge, positioned, quarantine

#: Comparing re-encoded instances decodes foreign streams in a child process: seconds and bytes it may take.
_COMPARE_TIMEOUT_S, _COMPARE_MEMORY_MAX_BYTES = 60.0, 2 * GIB


def run_worker(settings: WorkerSettings, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Take from the log and commit to the archive until `stop` is set and the batches in flight are committed.

    Raises:
        Misconfigured: another worker has this folder, or the catalog is of another version.
        Exception: one lane failed; the others were stopped in order, and nothing is lost.
    """
    with ExitStack() as stack:
        rooms = _open_rooms(settings, stack)
        threads = stack.enter_context(ThreadPoolExecutor(settings.worker_threads, "prepare"))
        committer = stack.enter_context(ThreadPoolExecutor(1, "commit"))
        lanes = [_lane(lane, settings, rooms, threads, committer, stack) for lane in Lane]
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
    store: LocalSegmentStore
    catalog: SqlCatalog
    decider: Decider
    policy: Policy
    can_rewrite: Callable[[int], bool]
    equal: Callable[[PlacedRecord, KnownVersion], bool]
    on_conflict: Callable[[PlacedRecord, KnownVersion], None]


def _open_rooms(settings: WorkerSettings, stack: ExitStack) -> _Rooms:
    disk, clock = SystemDisk(), SystemClock()
    disk.make_folder(settings.run_dir)
    store = stack.enter_context(closing(LocalSegmentStore(settings.archive_dir, disk=disk, clock=clock)))
    store.sweep()
    catalog = stack.enter_context(closing(open_catalog(settings.catalog_path, clock=clock)))
    decoder = stack.enter_context(
        closing(IsolatedDecoder(processes=1, timeout_s=_COMPARE_TIMEOUT_S, memory_max_bytes=_COMPARE_MEMORY_MAX_BYTES))
    )
    policy = Policy(transcode=settings.transcode, transcode_max_bytes=settings.transcode_max_bytes)
    equal, on_conflict = versions_equal(comparer(store, decoder.samples)), conflict_writer(store, clock)
    reader = stack.enter_context(closing(open_reader(settings.catalog_path)))
    decider = Decider(store=store, catalog=catalog, reader=reader, policy=policy, equal=equal, on_conflict=on_conflict)
    return _Rooms(
        disk=disk,
        clock=clock,
        store=store,
        catalog=catalog,
        decider=decider,
        policy=policy,
        can_rewrite=lambda size_bytes: _has_room_beside(settings, size_bytes),
        equal=equal,
        on_conflict=on_conflict,
    )


def _has_room_beside(settings: WorkerSettings, size_bytes: int) -> bool:
    """Whether a claim check may be written a second time, transcoded, before the first one goes.

    Without room it is filed where it lies: what the edge keeps back is for the log, and batches are always committed.
    Two batches are under way at most.
    """
    beside_bytes = 2 * max(settings.batch_max_bytes, size_bytes)
    return shutil.disk_usage(settings.archive_dir).free >= settings.disk_reserve_bytes / 2 + beside_bytes


def _lane(
    lane: Lane, settings: WorkerSettings, rooms: _Rooms, threads: Executor, committer: Executor, stack: ExitStack
) -> LaneLoop:
    consumer = stack.enter_context(
        closing(LocalConsumer(settings.log_dir, lane=lane, disk=rooms.disk, clock=rooms.clock))
    )
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
        hint=lambda taken: _known(rooms.catalog, taken),
        judge=lambda taken, known: _judge(rooms, taken, known),
        threads=threads,
        store=rooms.store,
        catalog=rooms.catalog,
        equal=rooms.equal,
        on_conflict=rooms.on_conflict,
        decide=rooms.decider.execute,
    )
    return LaneLoop(
        lane=lane,
        pipeline=pipeline,
        batches=Batches(consumer, limits, rooms.clock),
        book=AttemptBook(settings.run_dir / f"attempts-{lane}.json", rooms.disk),
        committer=committer,
        prepare_killer=lambda taken: _killer(rooms, taken),
        release=lambda batch: _release(rooms.store, batch),
        retry_wait_max_s=settings.retry_wait_max_s,
    )


def _run(lane: LaneLoop, stop: threading.Event) -> None:
    try:
        lane.run(stop)
    finally:
        stop.set()  # a lane that fails takes the process down in order: the supervisor starts it again


def _known(catalog: SqlCatalog, taken: Sequence[Taken]) -> KnownVersions:
    """Step 5: what is committed under the UIDs of these messages, by (tenant, SOP Instance UID)."""
    uids: dict[str, list[str]] = {}
    for one in taken:
        attributes = one.message.attributes
        uids.setdefault(attributes.tenant, []).append(attributes.sop_instance_uid)
    return {
        (tenant, uid): versions
        for tenant, wanted in uids.items()
        for uid, versions in catalog.known(tenant, wanted).items()
    }


def _judge(rooms: _Rooms, taken: Taken, known: KnownVersions) -> Judged:
    message, policy = taken.message, rooms.policy
    if message.attributes.data_ref and not rooms.can_rewrite(message.attributes.size_bytes):
        policy = replace(policy, transcode="keep", kept_reason=KeptReason.NO_ROOM)
    with opened(message, rooms.store, memory_max_bytes=policy.transcode_max_bytes) as file:
        judged = judge(message.attributes, file, known, policy, claim_of(message.attributes))
    _count(judged)
    return positioned(judged, taken.position)


def _count(judged: Judged) -> None:
    record = getattr(judged, "record", None)
    if isinstance(record, QuarantineRecord):
        metrics.QUARANTINED.labels(record.reason).inc()
        get_logger().warning("instance_quarantined", message_id=record.attributes.id, reason=record.reason)
    elif isinstance(record, InstanceRecord) and record.kept_reason:
        metrics.KEPT.labels(record.kept_reason).inc()


def _killer(rooms: _Rooms, taken: Taken) -> Batch:
    """A message that was alone in flight at three deaths: quarantined without being looked into."""
    message = taken.message
    with opened(message, rooms.store, memory_max_bytes=rooms.policy.transcode_max_bytes) as file:
        detail = "its worker died three times while it was alone in flight"
        claim = claim_of(message.attributes)
        entry = quarantine(message.attributes, file, QuarantineReason.KILLS_WORKER, detail, claim)
    _count(entry)
    return Batch(taken=[taken], members=[positioned(entry, taken.position)])


def _release(store: LocalSegmentStore, batch: Batch) -> None:
    for claim in batch.idle_claims:
        store.delete(claim)
