"""Publishes what the catalog's outbox holds, oldest first; a row goes when all its events are acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from archive.keeping import KeeperCatalog
from runtime import metrics
from runtime.clock import Clock, rfc3339
from schemas.events import Event

#: Studies that are found stable in one transaction.
STUDIES_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """One round after the other; used by one thread."""

    catalog: KeeperCatalog
    #: Returns when all are acknowledged; raises Retryable.
    deliver: Callable[[Sequence[Event]], None]
    clock: Clock
    rows_max: int
    stable_after: timedelta
    is_stopping: Callable[[], bool]

    def run(self) -> None:
        """Publish all that waits.

        Raises:
            Retryable: Kafka or the database is away; what was not deleted is published again.
        """
        while not self.is_stopping() and self._note_stable() == STUDIES_AT_ONCE:
            pass
        while not self.is_stopping() and self.catalog.publish(self.deliver, rows_max=self.rows_max) == self.rows_max:
            self._measure()
        self._measure()

    def _note_stable(self) -> int:
        since = rfc3339(self.clock.now() - self.stable_after)
        return self.catalog.note_stable(unchanged_since=since, studies_max=STUDIES_AT_ONCE)

    def _measure(self) -> None:
        waiting = self.catalog.waiting_events()
        metrics.OUTBOX_ROWS.set(waiting.rows)
        age_s = 0.0
        if waiting.oldest_at:
            age_s = (self.clock.now() - datetime.fromisoformat(waiting.oldest_at)).total_seconds()
        metrics.OUTBOX_AGE_SECONDS.set(max(0.0, age_s))
