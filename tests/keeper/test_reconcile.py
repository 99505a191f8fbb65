"""PostgreSQL is lost, or restored to an hour ago under continuing traffic: nothing is lost, and no byte goes before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archive import tide
from archive.fate import Fate
from archive.findings import no_progress
from archive.incarnation import Incarnation
from archive.journal import ConflictNoted, conflict_writer, same_writer, write
from archive.keeping import open_postgres_keeping
from archive.layout import JOURNAL
from archive.rebuild import rebuild_into
from archive.reconcile import Reconciled, Reconciliation
from archive.s3_access import S3Access
from archive.s3_store import S3SegmentStore
from archive.sql_catalog import open_postgres_catalog
from archive.sql_reader import open_postgres_reader
from archive.verify import verify
from keeper.tide import Restored, Tide
from region.postgres import PostgresServer
from runtime.clock import SystemClock
from runtime.errors import Misconfigured
from schemas.decisions import DiscardQuarantined, UseVersion
from schemas.identifiers import SegmentKey
from tests.archive.house import snapshot
from tests.archive.samples import SCOPE, TENANT, member, names, unfileable
from tests.datasets import mr_dataset
from tests.keeper.site import Site

UID = str(mr_dataset(1).SOPInstanceUID)


def live_through(site: Site) -> None:
    """A conflict and a decision about it, quarantine, a claim check, an orphan that was collected, one that was not."""
    first, other = member(mr_dataset(1)), member(mr_dataset(1, seed=7), message_id="other")
    site.take(first, unfileable("q1"))
    site.take(other)
    site.decide(UseVersion(tenant=TENANT, sop_instance_uid=UID, wire_sha256=other.record.wire_sha256), "d1")
    site.decide(DiscardQuarantined(tenant=TENANT, quarantine_id="q1"), "d2")
    site.take(site.claim(member(mr_dataset(2), keep=True)), member(mr_dataset(3)))
    site.put(member(mr_dataset(4)))
    site.take(member(mr_dataset(4)))
    site.collect(timedelta(days=2))
    site.collect(timedelta(days=3))
    site.put(member(mr_dataset(4)))


@pytest.fixture
def fresh_url(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    """Another database with tables."""
    yield postgres.create_database("fresh", template=migrated)
    postgres.drop_database("fresh")


def rebuilt(site: Site, url: str) -> dict[str, Any]:
    rebuild_into(site.store, url, equal=site.equal)
    with closing(open_postgres_reader(url)) as reader:
        verified = verify(reader, site.store)
        assert verified.is_clean, verified.findings
        return snapshot(reader)


def restored(site: Site, postgres: PostgresServer, backup: str) -> Site:
    """The site on a copy of the database as it was."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS restored WITH (FORCE)")
    again = Site(site.access, postgres.create_database("restored", template=backup))
    again.store = site.store
    return again


def reconcile(site: Site) -> Reconciled:
    with closing(open_postgres_catalog(site.url)) as catalog:
        return Reconciliation(
            store=site.store,
            catalog=catalog,
            keeping=site.keeping,
            equal=site.equal,
            on_conflict=conflict_writer(site.store, site.clock),
            on_same=same_writer(site.store, site.clock),
        ).run(no_progress)


def backup_of(site: Site, postgres: PostgresServer) -> str:
    """A copy of the database now; everybody is put out for a moment."""
    site.disconnect()
    postgres.create_database("backup", template=site.url.rpartition("/")[2])
    site.connect()
    return "backup"


@pytest.fixture
def no_backup(postgres: PostgresServer) -> Iterator[None]:
    yield
    for name in ("backup", "restored"):
        postgres.drop_database(name)


# ---- rebuild ----


def test_the_store_alone_gives_an_equal_catalog(site: Site, fresh_url: str) -> None:
    live_through(site)
    live = snapshot(site.reader)
    assert (len(live["instances"]), len(live["conflicts"]), len(live["quarantined"])) == (4, 1, 1)
    assert rebuilt(site, fresh_url) == live
    with psycopg.connect(fresh_url) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,), "there is nothing new to tell"
    with closing(open_postgres_keeping(fresh_url, clock=SystemClock())) as keeping:
        assert len(keeping.due(Fate.CONDEMNED, "9999", limit=9)) == 1
    with pytest.raises(Misconfigured, match="is not empty: make a new one"):
        rebuild_into(site.store, fresh_url, equal=site.equal)
    with pytest.raises(Restored):
        site.collect(timedelta(days=2))


def test_two_writers_whose_ids_are_not_in_the_order_of_their_commits(site: Site, fresh_url: str) -> None:
    """Who puts first commits last: equal content of another message, re-encoded content, and a conflict."""
    early = site.put(
        member(mr_dataset(1), message_id="late-same"),
        member(mr_dataset(2), message_id="late-encoded", transfer_syntax="1.2.840.10008.1.2"),
        member(mr_dataset(3, seed=9), message_id="late-other"),
    )
    other = S3SegmentStore(site.access, clock=site.clock)
    site.store, mine = other, site.store
    second = site.put(*(member(mr_dataset(number), message_id=f"won-{number}") for number in (1, 2, 3)))
    assert early[0].key < second[0].key
    assert names(list(site.commit(*second))) == ["New", "New", "New"]
    site.store = mine
    assert names(list(site.commit(*early))) == ["Same", "Same", "Conflict"]
    live = snapshot(site.reader)
    assert rebuilt(site, fresh_url) == live
    with closing(open_postgres_reader(fresh_url)) as reader:
        told = [
            [(row["wire_sha256"], row["verdict"]) for row in one.trace(SCOPE, str(mr_dataset(3).SOPInstanceUID))]
            for one in (site.reader, reader)
        ]
    assert told[0] == told[1]
    ((known, record),) = site.reader.versions(SCOPE, str(mr_dataset(2).SOPInstanceUID))
    assert (record.attributes.id, known.current) == ("won-2", True)


# ---- reconcile ----


def test_a_restored_catalog_is_told_and_nothing_is_collected(
    site: Site, postgres: PostgresServer, no_backup: None
) -> None:
    site.take(member(mr_dataset(1)))
    Tide(store=site.store, catalog=site.keeping).run()
    backup = backup_of(site, postgres)
    site.take(member(mr_dataset(2)))
    Tide(store=site.store, catalog=site.keeping).run()
    with closing(restored(site, postgres, backup)) as again:
        for _ in range(2):
            with pytest.raises(Restored, match="archive reconcile"):
                again.collect(timedelta(days=2))
            with pytest.raises(Restored):
                Tide(store=again.store, catalog=again.keeping).run()
        assert list(again.keeping.due(Fate.CONDEMNED, "9999", limit=9)) == []
        assert reconcile(again).new == 1
        again.collect(timedelta(days=2))
        Tide(store=again.store, catalog=again.keeping).run()
        assert again.reader.counters(TENANT)["instances"] == 2
    with pytest.raises(Restored):
        site.collect(timedelta(days=2))


def test_restored_under_continuing_traffic_nothing_is_lost(
    site: Site, postgres: PostgresServer, no_backup: None, fresh_url: str
) -> None:
    """The lost hour had a conflict, a decision, quarantine and a collected orphan; new messages come meanwhile."""
    site.take(member(mr_dataset(9)))
    Tide(store=site.store, catalog=site.keeping).run()
    backup = backup_of(site, postgres)
    live_through(site)
    Tide(store=site.store, catalog=site.keeping).run()
    live = snapshot(site.reader)
    with closing(restored(site, postgres, backup)) as again:
        stop = threading.Event()
        failures: list[BaseException] = []

        def traffic() -> None:
            number = 20
            try:
                while not stop.is_set():
                    again.take(member(mr_dataset(number, study=2)))
                    again.take(member(mr_dataset(4), message_id=f"again-{number}"))
                    number += 1
            except BaseException as error:  # noqa: BLE001 - told by the test's own thread
                failures.append(error)

        thread = threading.Thread(target=traffic)
        thread.start()
        done = reconcile(again)
        stop.set()
        thread.join(60)
        assert failures == []
        assert done.decisions == 2
        assert not [finding for finding in done.findings if finding.kind.is_error]
        now = snapshot(again.reader)
        assert {uid: now["versions"][uid] for uid in live["versions"]} == live["versions"]
        assert (now["conflicts"], now["quarantined"]) == (live["conflicts"], live["quarantined"])
        assert reconcile(again).new == 0
        assert snapshot(again.reader) == now
        assert verify(again.reader, again.store).is_clean
        assert rebuilt(again, fresh_url) == now


class BusyStore(S3SegmentStore):
    """A store whose journal has grown whenever it is listed: by conflicts of one instance."""

    def __init__(self, access: S3Access, sop_instance_uid: str, current_wire_sha256: str) -> None:
        super().__init__(access)
        self.listings = 0
        self._conflict = ConflictNoted(
            tenant=TENANT,
            sop_instance_uid=sop_instance_uid,
            wire_sha256="a",
            current_wire_sha256=current_wire_sha256,
            message_id="m",
            at="2026",
        )

    def keys(self, prefix: str = "") -> Iterator[SegmentKey]:
        if prefix == f"{JOURNAL}/":
            self.listings += 1
            assert self.listings < 20, "the journal is read for ever"
            write(self, self._conflict)
        return super().keys(prefix)


@pytest.mark.parametrize("busy", ["1.2.3", UID])
def test_it_ends_though_the_journal_grows_all_the_time(
    site: Site, postgres: PostgresServer, no_backup: None, busy: str
) -> None:
    backup = backup_of(site, postgres)
    first, other = member(mr_dataset(1)), member(mr_dataset(1, seed=7), message_id="other")
    site.take(first)
    site.take(other)
    site.decide(UseVersion(tenant=TENANT, sop_instance_uid=UID, wire_sha256=other.record.wire_sha256), "d1")
    with closing(restored(site, postgres, backup)) as again:
        again.store = BusyStore(site.access, busy, other.record.wire_sha256)
        assert reconcile(again).decisions == 1
        assert [known.current for known, _ in again.reader.versions(SCOPE, UID)] == [False, True]


def test_what_was_given_up_in_the_lost_hour_cannot_be_committed_late(
    site: Site, postgres: PostgresServer, no_backup: None
) -> None:
    put, _ = site.put(member(mr_dataset(1)))
    site.take(member(mr_dataset(1)))
    backup = backup_of(site, postgres)
    site.collect(timedelta(days=2))
    site.collect(timedelta(days=3))
    assert put.key not in site.segments()
    with closing(restored(site, postgres, backup)) as again:
        assert reconcile(again).condemned == 1
        assert again.keeping.condemn([put.key]) == []
        assert list(again.keeping.due(Fate.CONDEMNED, "9999", limit=9)) == [put.key]


# ---- the tide ----


def test_the_tide_of_the_file_and_of_the_catalog() -> None:
    life = Incarnation(id="a", tide=3)
    assert not tide.is_restored(None, life)
    assert not tide.is_restored(Incarnation(id="a", tide=3), life)
    assert not tide.is_restored(Incarnation(id="a", tide=2), life)
    assert tide.is_restored(Incarnation(id="a", tide=4), life)
    assert tide.is_restored(Incarnation(id="b", tide=0), life)


def test_a_keeper_killed_while_it_raises_the_tide_is_not_taken_for_a_restoration(site: Site, tmp_path: Path) -> None:
    site.run_until_killed(tmp_path, "tide.raised", TIDE_PERIOD_S="0.1")
    assert site.keeping.life().tide == 1
    Tide(store=site.store, catalog=site.keeping).run()
    assert tide.read(site.store) == site.keeping.life()
