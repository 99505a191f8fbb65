"""The collector and a late commit cannot both win; nothing that the catalog lacks is ever given up."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from archive.catalog import SegmentCondemned
from archive.fate import Fate
from archive.journal import CondemnedNoted, decode_entry
from tests.archive.samples import SCOPE, TENANT, member, unfileable
from tests.datasets import mr_dataset
from tests.keeper.site import Site
from tests.waiting import until

LATER, LATE = timedelta(days=2), timedelta(days=3)
NEVER = "9999"


def condemned(site: Site) -> list[str]:
    return list(site.keeping.due(Fate.CONDEMNED, NEVER, limit=100))


def noted(site: Site) -> list[str]:
    entries = [decode_entry(site.store.journal_entry(key)) for key in site.store.keys("journal/")]
    return [key for entry in entries if isinstance(entry, CondemnedNoted) for key in entry.keys]


def abandoned(site: Site, *numbers: int) -> str:
    """A segment that a worker put before it died; its messages were committed from another one."""
    members = [member(mr_dataset(number)) for number in numbers]
    put, _ = site.put(*members)
    site.take(*members)
    return put.key


def test_what_nobody_committed_is_given_up_then_deleted(site: Site) -> None:
    key = abandoned(site, 1)
    site.collect()
    assert condemned(site) == [], "it is too young"
    site.collect(LATER)
    assert condemned(site) == [key]
    assert key in site.segments()
    site.collect(LATER)
    assert (key in site.segments(), noted(site)) == (True, []), "the grace is not over"
    site.collect(LATE)
    assert (key in site.segments(), noted(site), condemned(site)) == (False, [key], [])
    assert site.store.read(site.reader.versions(SCOPE, str(mr_dataset(1).SOPInstanceUID))[0][0].location)


def test_a_commit_that_comes_too_late_fails_and_nothing_of_it_is_there(site: Site) -> None:
    put, placed = site.put(member(mr_dataset(1)), unfileable("q1"))
    assert list(site.keeping.condemn([put.key])) == [put.key]
    with pytest.raises(SegmentCondemned) as raised:
        site.commit(put, placed)
    assert raised.value.keys == {put.key}
    assert not any(site.reader.counters(TENANT).values())
    site.take(member(mr_dataset(1)), unfileable("q1"))
    assert site.reader.counters(TENANT)["instances"] == 1


def test_what_was_committed_is_never_given_up(site: Site) -> None:
    put, placed = site.put(member(mr_dataset(1)))
    site.commit(put, placed)
    assert site.keeping.condemn([put.key]) == []
    site.collect(LATER)
    assert condemned(site) == []


def test_both_at_once(site: Site) -> None:
    """Whoever inserts the key's row first wins, and the other one knows."""
    puts = [site.put(member(mr_dataset(number))) for number in range(1, 25)]
    given_up: list[str] = []
    committed: list[str] = []

    def condemn() -> None:
        for put, _ in puts:
            given_up.extend(site.keeping.condemn([put.key]))

    thread = threading.Thread(target=condemn)
    thread.start()
    for put, placed in reversed(puts):
        try:
            site.commit(put, placed)
            committed.append(put.key)
        except SegmentCondemned:
            pass
    thread.join(30)
    assert sorted([*given_up, *committed]) == sorted(put.key for put, _ in puts)
    assert given_up and committed
    assert site.reader.counters(TENANT)["instances"] == len(committed)


def test_a_commit_under_way_is_waited_for(site: Site) -> None:
    """Its row is there before its transaction ends: the collector does not overtake it."""
    key = site.put(member(mr_dataset(1)))[0].key
    site.take(member(mr_dataset(1)))
    given_up: list[list[str]] = []
    condemning = threading.Thread(target=lambda: given_up.append(list(site.keeping.condemn([key]))))
    with psycopg.connect(site.url) as committing:
        committing.execute("INSERT INTO segment (tenant_id, key) SELECT id, %s FROM tenant", [key])
        condemning.start()
        with psycopg.connect(site.url, autocommit=True) as watching:
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            until(lambda: watching.execute(waits).fetchone(), what="the collector waits")
    condemning.join(30)
    assert given_up == [[]]


def test_what_the_catalog_lacks_is_kept_and_said(site: Site) -> None:
    """A commit that a database lost: nothing of it goes, and no claim check goes that it may name."""
    put, _ = site.put(member(mr_dataset(1)))
    claim = site.claim(member(mr_dataset(2), keep=True))
    site.collect(LATER)
    assert condemned(site) == []
    site.take(member(mr_dataset(1)))
    site.collect(LATER)
    assert sorted(condemned(site)) == sorted([put.key, claim.location.segment])


def test_a_quarantined_message_is_content_too(site: Site) -> None:
    put, _ = site.put(unfileable("q1"))
    site.collect(LATER)
    assert condemned(site) == []
    site.take(unfileable("q1"))
    site.collect(LATER)
    assert condemned(site) == [put.key]


def test_claim_checks(site: Site) -> None:
    """One that is committed stays, one without a message goes; where it may wait in a spool, none goes."""
    used, idle = (site.claim(member(mr_dataset(number), keep=True)) for number in (1, 2))
    site.take(used)
    site.collect(LATER, claims=False)
    assert condemned(site) == []
    site.collect(LATER)
    assert condemned(site) == [idle.location.segment]


def test_what_the_log_held_is_committed_before_anything_is_given_up(site: Site) -> None:
    """And what goes is old enough when the log was looked at, not when the workers had come so far."""
    key = abandoned(site, 1)
    past, asked = [False, False, True, True], []
    collector = site.collector(LATER, mark=lambda: {"routine/0": len(asked)}, is_past=lambda mark: past[len(asked)])
    for expected in ([], [], [key]):
        collector.run()
        asked.append(dict(collector._seen[1]))  # type: ignore[index]
        assert condemned(site) == expected
    assert asked == [{"routine/0": 0}, {"routine/0": 0}, {"routine/0": 2}]
    collector.catalog.close()


def test_a_clock_that_jumps_ahead_gives_nothing_up(site: Site) -> None:
    """A claim check that an edge uploaded just now, and whose message is on its way."""
    claim = site.claim(member(mr_dataset(1), keep=True))
    site.collect(LATER, store=site.store)
    assert condemned(site) == []
    site.take(claim)
    assert site.reader.counters(TENANT)["instances"] == 1


@pytest.mark.parametrize(
    ("point", "there", "entries"),
    [("collector.condemned", True, 0), ("collector.journaled", True, 1), ("collector.deleted", False, 1)],
)
def test_a_killed_collector_loses_nothing_and_goes_on(
    site: Site, tmp_path: Path, point: str, there: bool, entries: int
) -> None:
    key = abandoned(site, 1)
    ages = {"COLLECT_AFTER_S": "0.001", "COLLECT_GRACE_S": "0", "COLLECT_PERIOD_S": "0.2"}
    site.run_until_killed(tmp_path, point, **ages)
    assert (key in site.segments(), noted(site)) == (there, [key] * entries)
    assert condemned(site) == [key]
    site.collect(LATE)
    assert (key in site.segments(), condemned(site), set(noted(site))) == (False, [], {key})
    assert site.reader.counters(TENANT)["instances"] == 1
