"""A region's archive without its processes: PostgreSQL and S3, driven as workers and the keeper drive them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from archive.catalog import Verdict
from archive.compare import comparer, versions_equal
from archive.decisions import execute
from archive.journal import conflict_writer, same_writer
from archive.keeping import KeeperCatalog, open_postgres_keeping
from archive.s3_access import S3Access
from archive.s3_claim_check import S3Uploads
from archive.s3_store import S3SegmentStore
from archive.segment_store import AdoptedMember, PreparedMember, PutSegment
from archive.sql_catalog import SqlCatalog, open_postgres_catalog
from archive.sql_reader import SqlCatalogReader, open_postgres_reader
from keeper.collector import Ages, Collector
from keeper.compactor import Compactor, Sizes
from keeper.tide import Tide
from region.role import Role
from runtime.clock import SystemClock
from runtime.faults import VARIABLE
from schemas.decisions import Decision
from schemas.record import MemberLocation, PlacedRecord
from tests.archive.house import DECODER
from tests.archive.samples import TENANT
from tests.waiting import until

AGES: Final = Ages(collect_after=timedelta(days=1), grace=timedelta(hours=1), replaced_keep=timedelta(days=8))


class LaterClock(SystemClock):
    """The machine's clock, so much ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


class LaterStore(S3SegmentStore):
    """A store whose clock, and nothing else, is so much ahead."""

    def __init__(self, access: S3Access, ahead: timedelta) -> None:
        super().__init__(access)
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


class Site:
    """One bucket's prefix and one database. Close it."""

    def __init__(self, access: S3Access, url: str) -> None:
        self.access, self.url = access, url
        self.clock = SystemClock()
        self.store = S3SegmentStore(access, clock=self.clock)
        self.equal = comparer(self.store, DECODER.samples)
        self.catalog: SqlCatalog
        self.reader: SqlCatalogReader
        self.keeping: KeeperCatalog
        self.connect()

    def connect(self) -> None:
        """Open the database."""
        self.catalog = open_postgres_catalog(self.url)
        self.reader = open_postgres_reader(self.url)
        self.keeping = open_postgres_keeping(self.url, clock=self.clock)

    def disconnect(self) -> None:
        """Leave no session in the database."""
        for one in (self.catalog, self.reader, self.keeping):
            one.close()

    # ---- what workers do ----

    def put(self, *members: PreparedMember | AdoptedMember) -> tuple[PutSegment, Sequence[PlacedRecord]]:
        """Step 7."""
        put = self.store.put(TENANT, members)
        pairs = zip(members, put.locations, strict=True)
        return put, [PlacedRecord(record=one.record, location=at) for one, at in pairs]

    def commit(self, put: PutSegment, placed: Sequence[PlacedRecord]) -> Sequence[Verdict]:
        """Step 8."""
        note = conflict_writer(self.store, self.clock)
        return self.catalog.commit_batch(
            placed,
            equal=versions_equal(self.equal),
            on_conflict=note,
            on_same=same_writer(self.store, self.clock),
            segments=[put.key],
        )

    def take(self, *members: PreparedMember | AdoptedMember) -> str:
        """Steps 7 and 8; gives the segment's key."""
        put, placed = self.put(*members)
        self.commit(put, placed)
        return put.key

    def claim(self, member: PreparedMember) -> AdoptedMember:
        """`member` as a claim check that an edge uploaded."""
        check = S3Uploads(self.access, object_max_bytes=2**30, clock=self.clock).open_claim_check(TENANT)
        for part in member.parts:
            check.write(part)
        span = check.finish(member.name, member.provenance)
        location = MemberLocation(segment=check.key, offset=span.offset, size_bytes=span.size_bytes)
        return AdoptedMember(record=member.record, location=location)

    def decide(self, decision: Decision, decision_id: str) -> bool:
        """An operator's decision."""
        return execute(
            self.catalog, self.store, decision, decision_id=decision_id, decided_at="2026-03-02", decided_by="ops"
        )

    # ---- what the keeper does ----

    def collector(self, ahead: timedelta = timedelta(), **given: Any) -> Collector:
        """A collector so much later."""
        clock = LaterClock(ahead)
        catalog = open_postgres_keeping(self.url, clock=clock)
        known: dict[str, Any] = {
            "store": LaterStore(self.access, ahead),
            "catalog": catalog,
            "require_current": Tide(store=self.store, catalog=catalog).require_current,
            "ages": AGES,
            "clock": clock,
            "mark": dict,
            "is_past": lambda _: True,
            "claims": True,
            "is_stopping": lambda: False,
        }
        return Collector(**{**known, **given})

    def collect(self, ahead: timedelta = timedelta(), **given: Any) -> None:
        """One round, so much later."""
        collector = self.collector(ahead, **given)
        try:
            collector.run()
        finally:
            collector.catalog.close()
            collector.store.close()

    def compact(self, ahead: timedelta = timedelta(hours=2), **given: Any) -> None:
        """One round of the compactor, so much later; what is small need not wait for more."""
        clock = LaterClock(ahead)
        sizes = {"below_bytes": 2**23, "target_bytes": 2**26, "after": timedelta(hours=1), "wait": timedelta(), **given}
        with closing(open_postgres_keeping(self.url, clock=clock)) as catalog:
            Compactor(
                store=self.store,
                catalog=catalog,
                sizes=Sizes(**sizes),
                clock=clock,
                require_current=Tide(store=self.store, catalog=catalog).require_current,
                is_stopping=lambda: False,
            ).run()

    def settings(self, **given: object) -> dict[str, str]:
        """Settings of a process on this site, by environment variable."""
        access = self.access
        known = {
            "CATALOG_URL": self.url,
            "STORE_URL": f"s3://{access.bucket}/{access.prefix}",
            "S3_ENDPOINT": access.endpoint,
            "S3_ACCESS_KEY_ID": access.access_key_id,
            "S3_SECRET_ACCESS_KEY": access.secret_access_key,
        }
        return {f"SANSFILM_{name}": str(value) for name, value in {**known, **given}.items()}

    def run_until_killed(self, folder: Path, point: str, **settings: object) -> None:
        """A keeper's process that dies at a fault point."""
        keeper = Role(["keeper"], folder, self.settings(**settings), awaits=["keeper"])
        try:
            keeper.launch(**{VARIABLE: point})
            until(lambda: not keeper.is_running, what=f"death at {point}")
        finally:
            keeper.kill()

    # ---- what is there ----

    def segments(self) -> set[str]:
        """Segments of instances there are."""
        return set(self.store.keys(f"{TENANT}/"))

    def close(self) -> None:
        self.disconnect()
        self.store.close()
