"""Small segments become large ones in which studies lie together; readers, rebuild and reconcile find every byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archive.catalog import Readable
from archive.fate import Fate
from archive.journal import CompactedNoted, decode_entry
from archive.moving import Overtaken
from archive.original import original
from archive.sql_reader import open_postgres_reader
from archive.verify import verify
from dicomweb.reading import Reading
from keeper.tide import Tide
from region.postgres import PostgresServer
from runtime.settings import WebSettings
from schemas.decisions import DiscardQuarantined, UseVersion
from schemas.record import decode_placed
from tests.archive.house import DECODER, snapshot
from tests.archive.samples import SCOPE, TENANT, member, unfileable
from tests.datasets import dataset_bytes, mr_dataset
from tests.keeper.site import Site
from tests.keeper.test_reconcile import backup_of, fresh_url, no_backup, rebuilt, reconcile, restored

__all__ = ["fresh_url", "no_backup"]
LONG = timedelta(days=9)


def small_segments(site: Site) -> list[str]:
    """Four batches of two studies, with a conflict, quarantine, a claim check and a batch that was all Same."""
    first, other = member(mr_dataset(1)), member(mr_dataset(1, seed=7), message_id="other")
    keys = [
        site.take(first, member(mr_dataset(2, study=2)), unfileable("q1")),
        site.take(other, member(mr_dataset(3))),
        site.take(site.claim(member(mr_dataset(4, study=2), keep=True)), member(mr_dataset(5, study=2))),
        site.take(member(mr_dataset(3))),
    ]
    uid = str(mr_dataset(1).SOPInstanceUID)
    site.decide(UseVersion(tenant=TENANT, sop_instance_uid=uid, wire_sha256=other.record.wire_sha256), "d1")
    return keys


def compacted(site: Site) -> list[CompactedNoted]:
    entries = [decode_entry(site.store.journal_entry(key)) for key in site.store.keys("journal/")]
    return [entry for entry in entries if isinstance(entry, CompactedNoted)]


def places(site: Site) -> set[str]:
    """Segments that the catalog refers to."""
    return {placed.location.segment for placed, _ in site.reader.placed()}


def content(site: Site) -> dict[str, Any]:
    """Everything readers are told, and that every byte is as it was received."""
    verified = verify(site.reader, site.store)
    assert verified.is_clean, verified.findings
    for number, study in ((2, 2), (3, 1), (4, 2), (5, 2)):
        wire = mr_dataset(number, study=study)
        ((known, record),) = site.reader.versions(SCOPE, str(wire.SOPInstanceUID))
        assert original(site.store, record, known.location) == dataset_bytes(wire)
    return snapshot(site.reader)


def test_small_segments_become_one_with_studies_together(site: Site) -> None:
    old = small_segments(site)
    before = content(site)
    site.compact(timedelta(minutes=1))
    assert places(site) & set(old) == set(old[:3]), "they are too young"
    site.compact()
    assert content(site) == before
    ((entry,), now) = compacted(site), places(site)
    assert (sorted(entry.replaces), len(entry.keys)) == (sorted(old), 1)
    assert len(now) == 2 and set(entry.keys) < now, "the claim check stays where it is"
    lines = [decode_placed(line) for line in site.store.index(entry.keys[0])]
    studies = [getattr(line.record, "study", None) for line in lines]
    assert studies == sorted(studies, key=lambda one: one.study_instance_uid if one else "")
    assert {line.origin for line in lines} == {key.rpartition("/")[2].removesuffix(".tar") for key in old[:3]}
    assert sorted(site.keeping.due(Fate.REPLACED, "9999", limit=9)) == sorted(old)
    site.compact(LONG)
    assert places(site) == now, "everything is moved once"


def test_what_was_replaced_goes_when_no_backup_needs_it(site: Site) -> None:
    old = small_segments(site)
    site.compact()
    site.collect(timedelta(days=7))
    assert set(old) <= site.segments()
    before = content(site)
    site.collect(LONG)
    assert not set(old) & site.segments()
    assert content(site) == before


def test_segments_of_the_size_wanted(site: Site) -> None:
    small_segments(site)
    site.take(*(member(mr_dataset(number, study=3)) for number in range(20, 26)))
    before = content(site)
    site.compact(target_bytes=12_000)
    (entry,) = compacted(site)
    assert len(entry.keys) > 3
    assert content(site) == before


def test_large_segments_and_single_ones_are_left(site: Site) -> None:
    key = site.take(member(mr_dataset(1)))
    site.compact()
    assert (places(site), compacted(site)) == ({key}, [])
    site.take(member(mr_dataset(2)))
    site.take(member(mr_dataset(3)))
    site.compact(below_bytes=10)
    assert compacted(site) == []


def test_too_few_wait_for_more(site: Site) -> None:
    small_segments(site)
    site.compact(wait=timedelta(days=1))
    assert compacted(site) == []
    site.compact(wait=timedelta(days=1), target_bytes=100)
    assert len(compacted(site)) == 1


def test_a_reader_that_looked_up_the_old_place_reads_on(site: Site) -> None:
    """Also after the old segment is gone: it looks once more where the instance is."""
    small_segments(site)
    wire = mr_dataset(3)
    (readable,) = found(site, wire)
    site.compact()
    reading = Reading(settings=WebSettings(), reader=site.reader, store=site.store, decoder=DECODER)
    before = reading.read_blocking(readable)
    site.collect(LONG)
    with pytest.raises(FileNotFoundError):
        site.store.read(readable.location)
    assert reading.read_blocking(readable) == before


def found(site: Site, wire: Any) -> Iterator[Readable]:
    return site.reader.instances(SCOPE, str(wire.StudyInstanceUID), sop_uid=str(wire.SOPInstanceUID))


def test_a_quarantine_entry_is_moved_and_can_be_closed(site: Site) -> None:
    small_segments(site)
    site.compact()
    site.collect(LONG)
    (entry,) = site.reader.quarantined(SCOPE)
    assert site.store.read(entry["location"]) == b"no data set"
    assert site.decide(DiscardQuarantined(tenant=TENANT, quarantine_id="q1"), "d2")


@pytest.mark.parametrize("days", [0, 9])
def test_the_store_alone_gives_an_equal_catalog(site: Site, fresh_url: str, days: int) -> None:
    """With what was replaced still there, and without it; a second compaction of other segments in between."""
    small_segments(site)
    site.compact()
    site.take(member(mr_dataset(6)), unfileable("q2"))
    site.take(member(mr_dataset(1, seed=8), message_id="third"), member(mr_dataset(7)))
    site.compact()
    live = content(site)
    if days:
        site.collect(timedelta(days=days))
    assert rebuilt(site, fresh_url) == live
    with closing(open_postgres_reader(fresh_url)) as reader:
        assert {placed.location for placed, _ in reader.placed()} == {p.location for p, _ in site.reader.placed()}


def test_a_restored_catalog_follows_compactions(
    site: Site, postgres: PostgresServer, no_backup: None, fresh_url: str
) -> None:
    old = small_segments(site)
    Tide(store=site.store, catalog=site.keeping).run()
    backup = backup_of(site, postgres)
    old.append(site.take(member(mr_dataset(6)), unfileable("q2")))
    site.compact()
    Tide(store=site.store, catalog=site.keeping).run()
    live = content(site)
    with closing(restored(site, postgres, backup)) as again:
        done = reconcile(again)
        assert (done.new, done.moved > 0) == (1, True)
        assert content(again) == live
        assert places(again) == places(site)
        assert sorted(again.keeping.due(Fate.REPLACED, "9999", limit=9)) == sorted(old)
        again.collect(LONG)
        assert not set(old) & again.segments()
        assert content(again) == live
        assert rebuilt(again, fresh_url) == live


def test_what_moved_meanwhile_is_not_moved_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two compactors at once, one of them late: it changes nothing, and what it wrote is collected."""
    small_segments(site)
    swap = type(site.keeping).swap

    def late(*given: Any, **more: Any) -> None:
        monkeypatch.setattr(type(site.keeping), "swap", swap)
        site.compact()
        swap(*given, **more)

    monkeypatch.setattr(type(site.keeping), "swap", late)
    with pytest.raises(Overtaken):
        site.compact()
    first, second = compacted(site)
    assert set(second.keys) < places(site)
    before = content(site)
    site.collect(timedelta(days=2))
    site.collect(LONG)
    assert not {*first.keys, *first.replaces} & site.segments()
    assert content(site) == before


@pytest.mark.parametrize("point", ["compactor.put", "compactor.journaled", "compactor.swapped"])
def test_a_killed_compactor_loses_nothing(site: Site, fresh_url: str, tmp_path: Path, point: str) -> None:
    old = small_segments(site)
    before = content(site)
    site.run_until_killed(tmp_path, point, COMPACT_AFTER_S="0", COMPACT_WAIT_S="0", COMPACT_PERIOD_S="0.2")
    assert content(site) == before
    assert bool(places(site) & set(old)) == (point != "compactor.swapped")
    assert rebuilt(site, fresh_url) == before
    site.store.delete(f"{TENANT}/none.tar")
    with psycopg.connect(site.url) as connection:  # the rebuilt one is not the one to go on with
        connection.execute("UPDATE incarnation SET incarnation_id = 'mine', tide = 1000000")
    site.store.put_state("tide.json", b"{}")
    site.compact()
    site.collect(timedelta(days=2))
    site.collect(LONG)
    assert content(site) == before
    assert not set(old) & site.segments()
    assert len(site.segments()) == 2, "the compacted segment and the claim check"
