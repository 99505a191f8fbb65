"""What the web role says of its machine as a whole, for ``/metrics``: what waits, what needs somebody, what is down.

Looked at from outside, for each scrape: the numbers hold while a role is down, stuck or in a loop of restarts. What
cannot be asked for at the moment is NaN, never an old value.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import generate_latest

from archive.catalog import CatalogReader
from broker.opening import local_usage, oldest_here, waiting_messages
from runtime import metrics
from runtime.clock import Clock, SystemClock
from runtime.errors import SansfilmError
from runtime.health import running_names
from runtime.roll import read_roll
from runtime.settings import CommonSettings
from schemas.message import Lane

_KAFKA_WAIT_S: Final = 5.0
_log = structlog.get_logger()


class Machine:
    """One per web process; thread-safe. `reader` stays the caller's."""

    def __init__(self, settings: CommonSettings, reader: CatalogReader, clock: Clock | None = None) -> None:
        self._settings = settings
        self._reader = reader
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._kafka = _KafkaLag(settings) if settings.kafka_bootstrap else None

    def page(self) -> bytes:
        """The gauges of this moment, Prometheus text format. Blocking."""
        with self._lock:
            self._look_at_log()
            self._look_at_catalog()
            self._look_at_processes()
            return generate_latest(metrics.MACHINE)

    def _look_at_log(self) -> None:
        usage = local_usage(self._settings)
        waiting = self._kafka.now() if self._kafka else usage.uncommitted_messages
        for lane in Lane:
            metrics.WAITING_MESSAGES.labels(lane.value).set(waiting.get(lane, math.nan))
            metrics.WAITING_OLDEST_SECONDS.labels(lane.value).set(self._age_s(oldest_here(self._settings, lane)))
        metrics.WAITING_BYTES.set(usage.uncommitted_bytes)
        metrics.DISK_FREE_BYTES.set(shutil.disk_usage(self._settings.data_dir).free)
        metrics.DISK_NEEDED_BYTES.set(self._settings.disk_reserve_bytes + 1.1 * usage.uncommitted_bytes)

    def _look_at_catalog(self) -> None:
        try:
            counters: Mapping[str, float] = self._reader.counters(self._settings.tenant)
        except SansfilmError as error:
            _log.warning("catalog_not_looked_at", error=type(error).__name__)
            counters = {}
        metrics.QUARANTINE_OPEN.set(counters.get("quarantined", math.nan))
        metrics.CONFLICTS.set(counters.get("conflicts", math.nan))

    def _look_at_processes(self) -> None:
        roll, running = read_roll(self._settings.run_dir), running_names(self._settings.run_dir)
        metrics.PROCESS_UP.clear()
        metrics.PROCESS_RESTARTS.clear()
        for name, restarts in roll.items():
            metrics.PROCESS_UP.labels(name).set(name in running)
            metrics.PROCESS_RESTARTS.labels(name).set(restarts)

    def _age_s(self, received_at: str) -> float:
        if not received_at:
            return 0.0
        try:
            moment = datetime.fromisoformat(received_at)
        except ValueError:
            return math.nan
        return max(0.0, (self._clock.now() - moment).total_seconds())


class _KafkaLag:
    """What workers have not committed, asked of Kafka in a thread: its own timeouts are longer than a scrape's."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings
        self._found: Mapping[Lane, int] = {}
        self._asking: threading.Thread | None = None

    def now(self) -> Mapping[Lane, int]:
        """The messages by lane; nothing if Kafka does not say it in time, and while an earlier question hangs."""
        if self._asking is None or not self._asking.is_alive():
            self._found = {}
            self._asking = threading.Thread(target=self._ask, name="kafka-lag", daemon=True)
            self._asking.start()
            self._asking.join(_KAFKA_WAIT_S)
        return {} if self._asking.is_alive() else self._found

    def _ask(self) -> None:
        try:
            self._found = waiting_messages(self._settings)
        except SansfilmError as error:
            _log.warning("kafka_not_looked_at", error=type(error).__name__)
