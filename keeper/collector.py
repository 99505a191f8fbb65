"""Removes segments that nothing refers to and none will, and those whose content was compacted into others.

First the bytes whose time has come, then the search; so what is condemned now goes in a later round at the earliest.

What was put so long ago that its message was in the log when the log was last looked at, and is committed by now, will
not be committed any more. Ages are by the store's own clock and the log's are offsets: this process' clock has no part
in what is given up, and no edge's has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from archive.fate import Fate
from archive.journal import CondemnedNoted, write
from archive.keeping import KeeperCatalog
from archive.layout import JOURNAL
from archive.segment_store import SegmentStore
from runtime import metrics
from runtime.clock import Clock, rfc3339
from runtime.faults import reach
from runtime.logs import get_logger
from schemas.identifiers import SegmentKey
from schemas.record import decode_placed
from segments.tar import SegmentDamaged

#: Keys compared with the catalog, condemned or deleted at once.
KEYS_AT_ONCE: Final = 500
#: Segments that nothing refers to, looked at in one round; the rest in the next one.
CANDIDATES_MAX: Final = 10_000
Mark = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How old something must be."""

    #: In the store, before it is given up.
    collect_after: timedelta
    #: Given up, before it is deleted.
    grace: timedelta
    #: Replaced, before it is deleted.
    replaced_keep: timedelta


@dataclass(slots=True, kw_only=True)
class Collector:
    """One round after the other; used by one thread."""

    store: SegmentStore
    catalog: KeeperCatalog
    ages: Ages
    clock: Clock
    #: How far the log reaches, and whether everything before such a mark is committed.
    mark: Callable[[], Mark]
    is_past: Callable[[Mark], bool]
    #: Whether claim checks are collected too: where they appear in the store just before their message in the log.
    claims: bool
    #: Raises Restored if the catalog was restored since it kept this archive.
    require_current: Callable[[], None]
    is_stopping: Callable[[], bool]
    #: When the log was looked at, by the store's clock, and how far it reached then.
    _seen: tuple[datetime, Mark] | None = None

    def run(self) -> None:
        """One round.

        Raises:
            Retryable: store, catalog or log is away, or the catalog was restored; what was done stays done, the rest
                follows in the next round.
        """
        self.require_current()
        self._delete(Fate.CONDEMNED, self.ages.grace)
        self._delete(Fate.REPLACED, self.ages.replaced_keep)
        at, reached = self._seen or self._look()
        if self.is_past(reached):
            self._seen = self._look()
            self._condemn(at - self.ages.collect_after)
        else:
            self._seen = at, reached
            get_logger().info("collection_waits_for_log")

    def _look(self) -> tuple[datetime, Mark]:
        return self.store.now(), self.mark()  # in this order: what was published before that time is before the mark

    # ---- deleting ----

    def _delete(self, fate: Fate, age: timedelta) -> None:
        before = rfc3339(self.clock.now() - age)
        while not self.is_stopping() and (keys := self.catalog.due(fate, before, limit=KEYS_AT_ONCE)):
            if fate is Fate.CONDEMNED:
                write(self.store, CondemnedNoted(keys=keys, at=rfc3339(self.clock.now())))
                reach("collector.journaled")
            for key in keys:
                self.store.delete(key)
            reach("collector.deleted")
            self.catalog.note_gone(keys)
            metrics.SEGMENTS_COLLECTED.labels("deleted").inc(len(keys))
            get_logger().info("segments_deleted", fate=fate.value, segments=len(keys))

    # ---- condemning ----

    def _condemn(self, before: datetime) -> None:
        found = list(islice(self._unknown(before), CANDIDATES_MAX))
        if self.is_stopping():
            return
        batches = {key: represented for key in found if (represented := self._is_represented(key)) is not None}
        lacking = [key for key, represented in batches.items() if not represented]
        metrics.SEGMENTS_UNREPRESENTED.set(len(lacking))
        for key in lacking:
            get_logger().error("segment_not_in_catalog", segment=key, hint="run sansfilm archive reconcile")
        given_up = [key for key, represented in batches.items() if represented]
        if self.claims and not lacking and len(found) < CANDIDATES_MAX:
            # Otherwise a claim check may be named by a batch that was not looked at, or that reconcile will commit.
            given_up += [key for key in found if key not in batches]
        for start in range(0, len(given_up), KEYS_AT_ONCE):
            self.require_current()
            condemned = self.catalog.condemn(given_up[start : start + KEYS_AT_ONCE])
            reach("collector.condemned")
            metrics.SEGMENTS_COLLECTED.labels("condemned").inc(len(condemned))
            get_logger().info("segments_condemned", segments=len(condemned))

    def _unknown(self, before: datetime) -> Iterator[SegmentKey]:
        """Segments of instances that the store got before a time and that no transaction knows."""
        old = (key for key, put_at in self.store.aged_keys() if put_at < before and not _is_journal(key))
        while not self.is_stopping() and (piece := list(islice(old, KEYS_AT_ONCE))):
            yield from map(SegmentKey, self.catalog.without_row(piece))

    def _is_represented(self, key: SegmentKey) -> bool | None:
        """Of a worker's batch: whether the catalog has all its content. None for a claim check, which has no index."""
        try:
            placed = [decode_placed(line) for line in self.store.index(key)]
        except (SegmentDamaged, ValueError, FileNotFoundError) as error:
            get_logger().error("segment_index_damaged", segment=key, error=type(error).__name__)
            return False
        return self.catalog.has_all(placed) if placed else None


def _is_journal(key: str) -> bool:
    return key.startswith(f"{JOURNAL}/")
