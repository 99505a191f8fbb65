"""The role: each duty in a thread of its own, one round after the other, where this process has the duty's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from archive.keeping import DutyLock, open_keeping
from archive.opening import open_store
from archive.postgres import bounds_of
from archive.segment_store import SegmentStore
from broker.opening import is_past, kafka_configuration, mark
from keeper.collector import Ages, Collector
from keeper.compactor import Compactor, Sizes
from keeper.relay import Relay
from keeper.tide import Restored, Tide
from runtime import metrics
from runtime.clock import Clock, SystemClock
from runtime.errors import Retryable
from runtime.logs import get_logger
from runtime.settings import KeeperSettings

#: Longest pause after a round that failed, and until another keeper's duty is asked for again.
_RETRY_WAIT_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """Something to be done again and again."""

    name: str
    period_s: float
    #: One round; raises Retryable if it is to be tried again soon.
    run: Callable[[], None]
    lock: DutyLock


def run_keeper(settings: KeeperSettings, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Do all duties until `stop` is set and the rounds under way are through.

    Raises:
        Misconfigured: there is nothing to keep, or it is not as it must be.
        Exception: a duty failed for good; the others were stopped in order.
    """
    clock = SystemClock()
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(settings, clock=clock)))
        duties = [
            _tide(settings, store, clock, stack),
            _collecting(settings, store, stop, stack),
            _compacting(settings, store, stop, stack),
            *_of_kafka(settings, clock, stop, stack),
        ]
        threads = stack.enter_context(ThreadPoolExecutor(len(duties), "keeper"))
        running = [threads.submit(_run, duty, stop) for duty in duties]
        ready()
        wait(running)
    for duty_run in running:
        duty_run.result()


def _tide(settings: KeeperSettings, store: SegmentStore, clock: Clock, stack: ExitStack) -> Duty:
    catalog = stack.enter_context(closing(open_keeping(settings, clock)))
    return _duty("tide", settings.tide_period_s, Tide(store=store, catalog=catalog).run, settings, stack)


class StoreClock(SystemClock):
    """The clock of a store: ages of what lies there, and times of grace, are no matter of this machine's."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store

    def now(self) -> datetime:
        """Raises OutOfSpace, Retryable."""
        return self._store.now()


def _collecting(settings: KeeperSettings, store: SegmentStore, stop: threading.Event, stack: ExitStack) -> Duty:
    clock = StoreClock(store)
    catalog = stack.enter_context(closing(open_keeping(settings, clock)))
    collector = Collector(
        store=store,
        catalog=catalog,
        require_current=Tide(store=store, catalog=catalog).require_current,
        ages=Ages(
            collect_after=timedelta(seconds=settings.collect_after_s),
            grace=timedelta(seconds=settings.collect_grace_s),
            replaced_keep=timedelta(seconds=settings.replaced_keep_s),
        ),
        clock=clock,
        mark=partial(mark, settings),
        is_past=partial(is_past, settings),
        claims=bool(settings.store_url and settings.kafka_bootstrap),  # elsewhere their messages wait unseen
        is_stopping=stop.is_set,
    )
    return _duty("collect", settings.collect_period_s, collector.run, settings, stack)


def _compacting(settings: KeeperSettings, store: SegmentStore, stop: threading.Event, stack: ExitStack) -> Duty:
    clock = StoreClock(store)
    catalog = stack.enter_context(closing(open_keeping(settings, clock)))
    compactor = Compactor(
        store=store,
        catalog=catalog,
        sizes=Sizes(
            below_bytes=settings.compact_below_bytes,
            target_bytes=settings.compact_target_bytes,
            after=timedelta(seconds=settings.compact_after_s),
            wait=timedelta(seconds=settings.compact_wait_s),
        ),
        clock=clock,
        require_current=Tide(store=store, catalog=catalog).require_current,
        is_stopping=stop.is_set,
    )
    return _duty("compact", settings.compact_period_s, compactor.run, settings, stack)


def _of_kafka(settings: KeeperSettings, clock: Clock, stop: threading.Event, stack: ExitStack) -> list[Duty]:
    """Events, and the trimming of the topics. A local log deletes its own files, and nobody reads events from it."""
    if not settings.kafka_bootstrap:
        get_logger().warning("events_not_published", hint="no Kafka broker is named: SANSFILM_KAFKA_BOOTSTRAP")
        return []
    from broker.kafka.access import check_access
    from broker.kafka.events import EventPublisher
    from broker.kafka.janitor import delete_committed

    configuration = kafka_configuration(settings)
    check_access(configuration)
    publisher = stack.enter_context(closing(EventPublisher(configuration)))
    relay = Relay(
        catalog=stack.enter_context(closing(open_keeping(settings, clock))),
        deliver=publisher.publish,
        clock=clock,
        rows_max=settings.relay_rows_max,
        stable_after=timedelta(seconds=settings.study_stable_after_s),
        is_stopping=stop.is_set,
    )

    def trim() -> None:
        delete_committed(configuration, keep_s=settings.log_keep_s, clock=clock)

    return [
        _duty("relay", settings.relay_period_s, relay.run, settings, stack),
        _duty("janitor", settings.janitor_period_s, trim, settings, stack),
    ]


def _duty(name: str, period_s: float, run: Callable[[], None], settings: KeeperSettings, stack: ExitStack) -> Duty:
    lock = DutyLock(settings.catalog_url.get_secret_value(), name, bounds_of(settings))
    stack.callback(lock.close)
    return Duty(name=name, period_s=period_s, run=run, lock=lock)


def _run(duty: Duty, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            stop.wait(_turn(duty))
    finally:
        stop.set()  # a duty that fails for good takes the process down in order: it is started again


def _turn(duty: Duty) -> float:
    """One round, if the duty is ours; gives the pause that follows."""
    outcome, pause_s = "done", duty.period_s
    try:
        if duty.lock.is_ours():
            with metrics.KEEPER_SECONDS.labels(duty.name).time():
                duty.run()
        else:
            outcome, pause_s = "idle", min(duty.period_s, _RETRY_WAIT_MAX_S)
    except Restored:
        outcome, pause_s = "refused", min(duty.period_s, _RETRY_WAIT_MAX_S)
    except Retryable as error:
        outcome, pause_s = "failed", min(duty.period_s, _RETRY_WAIT_MAX_S)
        get_logger().warning("duty_failed", duty=duty.name, error=str(error))
    metrics.KEEPER_ROUNDS.labels(duty.name, outcome).inc()
    return pause_s
