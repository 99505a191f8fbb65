"""A catalog made from segments and journal alone answers the same queries equally."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import ImplicitVRLittleEndian

from archive.compare import versions_equal
from archive.findings import FindingKind
from archive.journal import conflict_writer
from archive.layout import path_of
from archive.rebuild import rebuild
from archive.segment_store import AdoptedMember, PreparedMember
from ingest.large import LargeInstance, LocalClaimCheck
from runtime.errors import Fatal
from schemas.decisions import DiscardQuarantined, ReplayQuarantined, UseVersion
from schemas.record import InstanceRecord, MemberLocation
from segments.disk import SystemDisk
from tests.archive.house import House, snapshot
from tests.archive.samples import SCOPE, TENANT, member, names, unfileable
from tests.datasets import mr_dataset

NUMBERS = (1, 2, 3)
#: What can come under each number: the first content, another one, the first re-encoded, or under another study.
CONTENTS = ("first", "other", "third", "reencoded", "elsewhere")


@cache
def instance(number: int, content: str) -> PreparedMember:
    dataset = mr_dataset(
        number,
        rows=16,
        columns=16,
        seed=("first", "other", "third").index(content) if content in ("first", "other", "third") else 0,
    )
    if content == "elsewhere":
        dataset.StudyInstanceUID = "1.2.3.999"
    syntax = ImplicitVRLittleEndian if content == "reencoded" else "1.2.840.10008.1.2.1"
    return member(dataset, transfer_syntax=syntax, message_id=f"{number}-{content}")


@cache
def odd(number: int) -> PreparedMember:
    return unfileable(f"q{number}", f"odd {number}".encode())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


members = st.one_of(
    st.builds(instance, st.sampled_from(NUMBERS), st.sampled_from(CONTENTS)), st.builds(odd, st.sampled_from(NUMBERS))
)
batches = st.lists(members, min_size=1, max_size=4)
actions = st.one_of(
    st.tuples(st.just("batch"), batches),
    st.tuples(st.just("crash after put"), batches),
    st.tuples(st.just("crash in commit"), batches),
    st.tuples(st.just("overtaken"), st.sampled_from(NUMBERS)),
    st.tuples(st.just("use"), st.tuples(st.sampled_from(NUMBERS), st.sampled_from(CONTENTS))),
    st.tuples(st.just("replay"), st.sampled_from(NUMBERS)),
    st.tuples(st.just("discard"), st.sampled_from(NUMBERS)),
)


class _Crash(Exception):
    pass


def _act(house: House, action: str, what: object, turn: int) -> None:
    if action == "batch":
        house.take(*what)  # type: ignore[misc]
    elif action == "crash after put":
        batch = list(what)  # type: ignore[call-overload]
        house.put(batch)
        house.start()
        for one in reversed(batch):  # from several lanes, in whatever order
            house.take(one)
    elif action == "crash in commit":
        _crash_in_commit(house, list(what))  # type: ignore[call-overload]
    elif action == "overtaken":
        late = instance(int(str(what)), "elsewhere")
        house.put([late])
        house.take(instance(int(str(what)), "first"))
        house.take(late)
    elif action == "use":
        number, content = what  # type: ignore[misc]
        one = instance(number, content).record
        chosen = UseVersion(tenant=TENANT, sop_instance_uid=one.instance.sop_instance_uid, wire_sha256=one.wire_sha256)
        house.decide(chosen, f"d{turn}")
    else:
        kind = ReplayQuarantined if action == "replay" else DiscardQuarantined
        house.decide(kind(tenant=TENANT, quarantine_id=f"q{what}"), f"d{turn}")


def _crash_in_commit(house: House, batch: list[PreparedMember]) -> None:
    """The journal has the conflict, the transaction does not end; the batch comes again."""
    placed = house.put(batch)
    note = conflict_writer(house.store, house.clock)

    def dies(one: object, stays: object) -> None:
        note(one, stays)  # type: ignore[arg-type]
        raise _Crash

    equal, segments = versions_equal(house.equal), [house.latest.key]
    try:
        house.catalog.commit_batch(placed, equal=equal, on_conflict=dies, segments=segments)
    except _Crash:
        house.start()
        house.take(*batch)


@settings(max_examples=20, deadline=None)
@given(st.lists(actions, min_size=1, max_size=8))
@example([("overtaken", 1), ("use", (1, "elsewhere")), ("batch", [instance(1, "other")])])
@example([("crash after put", [instance(1, "reencoded"), instance(1, "first")])])
@example([("crash after put", [odd(1)]), ("replay", 1)])
@example([("batch", [odd(1)]), ("crash in commit", [odd(1)]), ("replay", 1), ("crash after put", [odd(1)])])
@example([("batch", [odd(1)]), ("replay", 1), ("batch", [odd(1)]), ("discard", 1), ("batch", [odd(1)])])
@example([("batch", [instance(2, "other"), instance(2, "reencoded"), instance(2, "first")])])
def test_rebuilt_answers_as_the_live_one(history: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        for turn, (action, what) in enumerate(history):
            _act(house, action, what, turn)
        live = snapshot(house.reader)
        report = house.rebuild()
        assert snapshot(house.reader) == live
        assert [finding for finding in report.findings if finding.kind.is_error] == []
        house.close()


def test_conflicts_decisions_and_quarantine_survive(house: House) -> None:
    first, other = instance(1, "first"), instance(1, "other")
    assert names(list(house.take(first, other, odd(1)))) == ["New", "Conflict", "Quarantined"]
    assert house.decide(
        UseVersion(
            tenant=TENANT,
            sop_instance_uid=first.record.instance.sop_instance_uid,  # type: ignore[union-attr]
            wire_sha256=other.record.wire_sha256,
        ),
        "d1",
    )
    house.decide(DiscardQuarantined(tenant=TENANT, quarantine_id="q1"), "d2")
    live = snapshot(house.reader)
    report = house.rebuild()
    assert snapshot(house.reader) == live
    assert live["current"] == [other.record]
    assert (report.segments, report.records, report.journal_entries) == (1, 3, 3)


def test_a_reencoding_is_the_same_content(house: House) -> None:
    assert names(list(house.take(instance(1, "first"), instance(1, "reencoded")))) == ["New", "Same"]
    assert names(list(house.take(instance(1, "elsewhere")))) == ["Conflict"]


def test_a_decision_about_nothing_is_not_written(house: House) -> None:
    gone = UseVersion(tenant=TENANT, sop_instance_uid="1.2", wire_sha256="00")
    assert not house.decide(gone, "d1")
    assert list(house.store.keys("journal/")) == []


def test_a_reader_follows_the_swap_and_the_old_file_goes(house: House) -> None:
    house.take(instance(1, "first"))
    before = house.catalog_path.resolve()
    assert house.reader.counters(TENANT)["instances"] == 1
    house.rebuild()
    house.take(instance(2, "first"))
    assert house.reader.counters(TENANT)["instances"] == 2
    assert house.catalog_path.resolve() != before
    names_left = sorted(
        path.name for path in house.catalog_path.parent.iterdir() if "-wal" not in path.name and "-shm" not in path.name
    )
    assert names_left == sorted([house.catalog_path.resolve().name, "catalog.sqlite", "catalog.sqlite.lock"])


def test_iterating_readers_survive_the_swap(house: House) -> None:
    house.take(*(instance(number, "first") for number in NUMBERS))
    study = instance(1, "first").record.study.study_instance_uid  # type: ignore[union-attr]
    going = house.reader.instances(SCOPE, study)
    first = next(going)
    house.rebuild()
    assert [first.record.attributes.id, *(one.record.attributes.id for one in going)] == [
        "1-first",
        "2-first",
        "3-first",
    ]


def test_with_the_catalog_lost(house: House) -> None:
    house.take(instance(1, "first"), instance(2, "first"))
    live = snapshot(house.reader)
    house.catalog.close()
    for path in house.catalog_path.parent.iterdir():
        path.unlink()
    house.rebuild()
    assert snapshot(house.reader) == live


def test_a_segment_without_a_readable_index_is_described_again(house: House) -> None:
    house.take(instance(1, "first"), instance(1, "elsewhere"), odd(1))
    live = snapshot(house.reader)
    (key, *_) = house.store.keys()
    path = house.folder / "archive" / "segments" / key
    path.write_bytes(path.read_bytes().replace(b'{"kind":"instance"', b'{"kind":"inst@nce"'))
    report = house.rebuild()
    assert [finding.kind for finding in report.findings] == [FindingKind.INDEX_REPLACED]
    assert snapshot(house.reader) == live


def test_a_lost_segment_keeps_the_old_catalog(house: House) -> None:
    house.take(instance(1, "first"))
    house.take(instance(2, "first"))
    live, before = snapshot(house.reader), house.catalog_path.resolve()
    house.store.delete(next(iter(house.store.keys())))
    with pytest.raises(Fatal, match="1 versions of the catalog are not in the archive"):
        house.rebuild()
    assert house.catalog_path.resolve() == before
    assert snapshot(house.reader) == live
    assert len(list(house.catalog_path.parent.glob("catalog-*.sqlite"))) == 1
    house.rebuild(accept_losses=True)
    assert house.reader.counters(TENANT)["instances"] == 1


def test_a_running_worker_keeps_its_catalog(house: House, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from archive.local_store import LocalSegmentStore\n"
        "from archive.rebuild import rebuild; from runtime.errors import Misconfigured\n"
        "store = LocalSegmentStore(Path(sys.argv[1]) / 'archive')\n"
        "try: rebuild(store, Path(sys.argv[1]) / 'catalog' / 'catalog.sqlite', equal=lambda a, b: False)\n"
        "except Misconfigured as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "stop the worker first" in done.stdout


def test_a_large_instance_in_a_segment_of_its_own(house: House) -> None:
    one = instance(1, "first")
    (claim,) = house.put([one])
    house.take(instance(2, "first"), AdoptedMember(record=one.record, location=claim.location))
    live = snapshot(house.reader)
    house.rebuild()
    assert snapshot(house.reader) == live


def test_a_collected_duplicate_is_not_filed_without_its_bytes(house: House) -> None:
    one = instance(1, "first")
    (claim,) = house.put([one])
    adopted = AdoptedMember(record=one.record, location=claim.location)
    house.put([adopted])
    house.take(one)
    house.store.delete(claim.location.segment)
    live = snapshot(house.reader)
    house.rebuild()
    assert snapshot(house.reader) == live
    (seen,) = [version for version, _ in house.reader.placed()]
    assert house.store.read(seen.location)


def test_progress_ends_at_the_total(house: House) -> None:
    house.take(instance(1, "first"))
    house.take(instance(2, "first"))
    seen: list[tuple[int, int]] = []
    house.rebuild(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_an_empty_archive(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.rebuild()
    assert house.reader.counters(TENANT)["instances"] == 0
    house.close()


@pytest.mark.parametrize("opinion", [True, False])
def test_noted_conflicts_are_not_judged_again(house: House, opinion: bool) -> None:
    """A comparer that has changed its mind since does not change what was decided."""
    house.take(instance(1, "first"))
    house.take(instance(1, "other"), instance(1, "elsewhere"))
    live = snapshot(house.reader)
    house.catalog.close()
    rebuild(house.store, house.catalog_path, equal=lambda one, other: opinion, clock=house.clock)
    assert snapshot(house.reader) == live


def test_a_batch_of_which_nothing_is_left_is_not_unfinished_after_a_rebuild(house: House) -> None:
    """A large duplicate is removed once it is known to be one; the batch that named it holds nothing else."""
    house.take(instance(1, "first"))
    (claim,) = house.put([odd(2)])
    house.take(AdoptedMember(record=instance(1, "first").record, location=claim.location))
    house.store.delete(claim.location.segment)
    house.decide(DiscardQuarantined(tenant=TENANT, quarantine_id="q2"), "decision-1")
    house.rebuild()
    assert house.start() == 0


def test_a_damaged_index_loses_none_of_the_claim_checks_that_it_adopted(house: House) -> None:
    claims = [claim_check(house, number) for number in NUMBERS]
    house.take(*claims[:1])
    house.take(*claims[1:], instance(9, "first"))
    house.take(instance(8, "first"))
    live = snapshot(house.reader)
    path = path_of(
        house.folder / "archive", [key for key in house.store.keys(f"{TENANT}/") if house.store.index(key)][1]
    )
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b'"kind"')] ^= 1
    path.write_bytes(damaged)
    report = house.rebuild()
    assert [one.kind for one in report.findings] == [FindingKind.INDEX_REPLACED]
    again = snapshot(house.reader)
    for of_whom in (live, again):
        del of_whom["current"]  # why a claim check was kept as it came, only the index knew
    assert again == live


def claim_check(house: House, number: int) -> AdoptedMember:
    """An instance that the edge wrote as a segment of its own, as the worker adopts it."""
    prepared = member(mr_dataset(number, rows=16, columns=16), keep=True, message_id=f"claim {number}")
    assert isinstance(prepared.record, InstanceRecord)
    large = LargeInstance(LocalClaimCheck(SystemDisk(), house.folder / "archive", TENANT, house.clock))
    for part in prepared.parts:
        large.write(part)
    named = large.finish(prepared.record.attributes)
    location = MemberLocation(segment=named.data_ref, offset=named.data_offset, size_bytes=named.size_bytes)
    return AdoptedMember(record=replace(prepared.record, attributes=named), location=location)


def test_what_later_instances_add_to_a_study_is_rebuilt(house: House) -> None:
    house.take(member(mr_dataset(1, PatientID="", PatientName="", AccessionNumber="")))
    house.take(member(mr_dataset(2)), member(mr_dataset(3, PatientID="OTHER", PatientName="OTHER^ONE")))
    before = snapshot(house.reader)
    assert before["counters"]["mixed"] == 1
    house.rebuild()
    assert snapshot(house.reader) == before
