"""A whole archive in a folder, driven as the worker drives it; and a snapshot of all that readers can ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from archive.catalog import CatalogReader, Query, Scope, Verdict
from archive.compare import comparer, versions_equal
from archive.decisions import execute
from archive.journal import conflict_writer
from archive.local_store import LocalSegmentStore
from archive.rebuild import Rebuilding, rebuild
from archive.segment_store import AdoptedMember, PreparedMember, PutSegment, SegmentStore
from archive.sql_catalog import SqlCatalog, open_catalog
from archive.sql_reader import SqlCatalogReader, open_reader
from archive.unfinished import commit_unfinished, unfinished
from instances.decode import IsolatedDecoder
from schemas.decisions import Decision
from schemas.record import PlacedRecord
from tests.archive.samples import TENANT, StepClock

#: More rows than any test has.
LIMIT = 1_000_000
DECODER = IsolatedDecoder(processes=1, timeout_s=20, memory_max_bytes=2**30)


class House:
    """Store, catalog, journal and reader of one folder."""

    def __init__(self, folder: Path, open_store: Callable[[StepClock], SegmentStore] | None = None) -> None:
        self.folder = folder
        self.catalog_path = folder / "catalog" / "catalog.sqlite"
        self.clock = StepClock()
        self.store: SegmentStore = (
            open_store(self.clock) if open_store else LocalSegmentStore(folder / "archive", clock=self.clock)
        )
        self.equal = comparer(self.store, DECODER.samples)
        self.catalog: SqlCatalog = open_catalog(self.catalog_path, clock=self.clock)
        self.reader: SqlCatalogReader = open_reader(self.catalog_path)
        self.latest: PutSegment

    def put(self, members: Sequence[PreparedMember | AdoptedMember], tenant: str = TENANT) -> list[PlacedRecord]:
        """Step 7."""
        self.latest = self.store.put(tenant, members)
        pairs = zip(members, self.latest.locations, strict=True)
        return [PlacedRecord(record=one.record, location=at) for one, at in pairs]

    def commit(self, placed: Sequence[PlacedRecord]) -> Sequence[Verdict]:
        """Step 8 of what was put last."""
        note = conflict_writer(self.store, self.clock)
        return self.catalog.commit_batch(
            placed,
            equal=versions_equal(self.equal),
            on_conflict=note,
            segments=[self.latest.key] if self.latest else [],
        )

    def start(self) -> int:
        """What a worker does first; gives how many segments the last run had put and not committed."""
        found = unfinished(self.store, self.catalog, segments_max=8)
        note = conflict_writer(self.store, self.clock)
        commit_unfinished(self.store, self.catalog, found, equal=versions_equal(self.equal), on_conflict=note)
        return len(found)

    def take(self, *members: PreparedMember | AdoptedMember) -> Sequence[Verdict]:
        """Steps 7 and 8."""
        return self.commit(self.put(members))

    def decide(self, decision: Decision, decision_id: str) -> bool:
        """An operator's decision."""
        return execute(
            self.catalog, self.store, decision, decision_id=decision_id, decided_at="2026-03-02", decided_by="ops"
        )

    def rebuild(self, **options: Any) -> Rebuilding:
        """`sansfilm archive rebuild`, the worker stopped meanwhile."""
        self.catalog.close()
        try:
            return rebuild(self.store, self.catalog_path, equal=self.equal, clock=self.clock, **options)
        finally:
            self.catalog = open_catalog(self.catalog_path, clock=self.clock)

    def close(self) -> None:
        self.reader.close()
        self.catalog.close()
        self.store.close()


def snapshot(reader: CatalogReader, tenant: str = TENANT) -> dict[str, Any]:
    """Everything a reader can be told of a tenant, places and times of commit left out."""
    scope = Scope(principal="test", tenant=tenant)
    studies = reader.search(scope, Query(level="study", matches={}, limit=LIMIT))
    series = reader.search(scope, Query(level="series", matches={}, limit=LIMIT))
    instances = reader.search(scope, Query(level="instance", matches={}, limit=LIMIT))
    uids = sorted({one.values["SOPInstanceUID"] for one in instances})
    entries = reader.quarantined(scope, include_closed=True)
    return {
        "studies": [
            (dict(one.values), one.conflict_count, one.held_count, one.received_at, one.is_mixed) for one in studies
        ],
        "series": [(dict(one.values), one.conflict_count) for one in series],
        "instances": [(dict(one.values), one.conflict_count) for one in instances],
        "current": [
            one.record for found in studies for one in reader.instances(scope, found.values["StudyInstanceUID"])
        ],
        "versions": {
            uid: sorted((known.wire_sha256, known.study_instance_uid, known.current) for known, _ in found)
            for uid in uids
            if (found := reader.versions(scope, uid))
        },
        "conflicts": sorted(reader.conflicts(scope)),
        "quarantined": [(one["id"], one["state"], one["reason"], one["decided_by"]) for one in entries],
        "counters": dict(reader.counters(tenant)),
    }
