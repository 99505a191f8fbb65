"""The role: composes the rooms for each lane and runs them until told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing

from archive.opening import is_embedded
from broker.log import Taken
from broker.opening import open_consumer
from runtime.settings import WorkerSettings
from schemas.message import Lane
from workers.attempts import AttemptBook, FilePages
from workers.batches import Batches, BatchLimits
from workers.committing import Committer
from workers.isolation import Isolation
from workers.lanes import LaneLoop
from workers.pipeline import Batch, Pipeline
from workers.rooms import Rooms, finish_last_run, open_rooms


def run_worker(settings: WorkerSettings, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Take from the log and commit to the archive until `stop` is set and the batches in flight are committed.

    Raises:
        Misconfigured: another worker has this folder, or the catalog is of another version or of another day.
        Exception: one lane failed; the others were stopped in order, and nothing is lost.
    """
    with ExitStack() as stack:
        rooms = open_rooms(settings, stack)
        finish_last_run(settings, rooms)
        isolation = Isolation()
        committer = stack.enter_context(closing(Committer()))
        lanes = [_lane(lane, settings, rooms, committer, isolation, stack) for lane in settings.lanes]
        runners = stack.enter_context(ThreadPoolExecutor(len(lanes), "lane"))
        running = [runners.submit(_run, lane, stop) for lane in lanes]
        ready()
        wait(running)
    for lane_run in running:
        lane_run.result()


def _lane(
    lane: Lane, settings: WorkerSettings, rooms: Rooms, committer: Committer, isolation: Isolation, stack: ExitStack
) -> LaneLoop:
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
        on_same=rooms.on_same,
    )
    return LaneLoop(
        lane=lane,
        pipeline=pipeline,
        batches=Batches(consumer, limits, rooms.clock),
        book=AttemptBook(rooms.catalog if settings.kafka_bootstrap else FilePages(settings.run_dir, rooms.disk)),
        stream_of=_partition if settings.kafka_bootstrap else lambda _: lane.value,
        committer=committer,
        isolation=isolation,
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


def _release(rooms: Rooms, batch: Batch) -> None:
    for claim in batch.idle_claims:
        if not rooms.catalog.has_committed(claim):
            rooms.store.delete(claim)


def _leave_to_collector(batch: Batch) -> None:
    """Another worker may be about to commit a claim check that this one rewrote: only the collector can know."""
