"""What every catalog promises; a test module inherits it and gives the fixtures `catalog`, `reader` and `reopened`."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from archive.catalog import Between, Catalog, CatalogReader, Found, KnownVersion, New, Query, Scope, Wildcard
from schemas.decisions import DiscardQuarantined, ReplayQuarantined, UseVersion
from schemas.identifiers import SegmentKey
from schemas.record import InstanceRecord, PatientAttributes, PlacedRecord, SeriesAttributes, StudyAttributes
from tests.archive.samples import (
    NEW,
    QUARANTINED,
    SAME,
    SCOPE,
    TENANT,
    always_equal,
    attributes,
    conflict_with,
    never_equal,
    not_noted,
    placed,
    quarantined,
    record,
)

Reopen = Callable[[], Catalog]


def commit(catalog: Catalog, *records: InstanceRecord, equal: object = never_equal) -> list[object]:
    """Commit records as one batch."""
    return list(catalog.commit_batch([placed(one) for one in records], equal=equal, on_conflict=not_noted))  # type: ignore[arg-type]


def use(catalog: Catalog, one: InstanceRecord, decision_id: str = "d1") -> bool:
    """Decide that the version `one` is the current one."""
    chosen = UseVersion(tenant=TENANT, sop_instance_uid=one.instance.sop_instance_uid, wire_sha256=one.wire_sha256)
    return catalog.apply(chosen, decision_id=decision_id, decided_at="2026-03-02T00:00:00.000000Z", decided_by="ops")


def current(reader: CatalogReader, study: str, uid: str) -> list[str]:
    """Digests of what readers see under a UID in a study."""
    return [one.record.wire_sha256 for one in reader.instances(SCOPE, study, sop_uid=uid)]


class CatalogContract:
    """Inherit, and give the fixtures."""

    def test_first_content_is_new_and_visible(self, catalog: Catalog, reader: CatalogReader) -> None:
        assert commit(catalog, record("1.1"), record("1.2")) == [NEW, NEW]
        assert [one.record.instance.sop_instance_uid for one in reader.instances(SCOPE, "1.2")] == ["1.1", "1.2"]

    def test_the_same_batch_again_changes_nothing(self, catalog: Catalog, reader: CatalogReader) -> None:
        batch = [record("1.1"), record("1.2")]
        commit(catalog, *batch)
        before = dict(reader.counters(TENANT))
        assert commit(catalog, *batch) == [SAME, SAME]
        assert reader.counters(TENANT) == before

    def test_duplicates_inside_a_batch(self, catalog: Catalog, reader: CatalogReader) -> None:
        a, b = record("1.1", "a"), record("1.1", "b")
        assert commit(catalog, a, a, b, b, a) == [NEW, SAME, conflict_with(a), SAME, SAME]
        assert reader.counters(TENANT)["versions"] == 2

    def test_other_content_is_a_conflict_and_the_first_stays(self, catalog: Catalog, reader: CatalogReader) -> None:
        first, other = record("1.1", "a"), record("1.1", "b")
        commit(catalog, first)
        assert commit(catalog, other) == [conflict_with(first)]
        assert current(reader, "1.2", "1.1") == [first.wire_sha256]
        versions = reader.versions(SCOPE, "1.1")
        assert [(known.wire_sha256, known.current) for known, _ in versions] == [
            (first.wire_sha256, True),
            (other.wire_sha256, False),
        ]
        assert reader.conflicts(SCOPE) == ["1.1"]

    def test_a_committed_version_that_is_not_current_is_same(self, catalog: Catalog) -> None:
        commit(catalog, record("1.1", "a"))
        commit(catalog, record("1.1", "b"))
        assert commit(catalog, record("1.1", "b")) == [SAME]

    def test_a_known_uid_under_another_study_is_a_conflict(self, catalog: Catalog, reader: CatalogReader) -> None:
        here, there = record("1.1", study="1.2"), record("1.1", study="9.9")
        commit(catalog, here)
        assert commit(catalog, there) == [conflict_with(here)]
        assert current(reader, "1.2", "1.1") == [here.wire_sha256]
        assert current(reader, "9.9", "1.1") == []
        assert reader.counters(TENANT)["studies"] == 1

    def test_a_reencoding_is_same(self, catalog: Catalog, reader: CatalogReader) -> None:
        commit(catalog, record("1.1", "a"))
        assert commit(catalog, record("1.1", "b"), equal=always_equal) == [SAME]
        assert reader.conflicts(SCOPE) == []

    def test_equality_is_asked_only_under_an_unequal_digest(self, catalog: Catalog) -> None:
        def must_not_ask(one: PlacedRecord, version: KnownVersion) -> bool:
            raise AssertionError("asked")

        commit(catalog, record("1.1"), record("1.1"), record("1.2"), equal=must_not_ask)
        commit(catalog, record("1.1"), equal=must_not_ask)

    def test_equality_is_asked_of_every_version(self, catalog: Catalog) -> None:
        commit(catalog, record("1.1", "a"))
        commit(catalog, record("1.1", "b"))
        like_b = record("1.1", "b").wire_sha256
        assert commit(catalog, record("1.1", "c"), equal=lambda _, version: version.wire_sha256 == like_b) == [SAME]

    def test_of_many_versions_the_current_and_the_newest_are_compared(self, catalog: Catalog) -> None:
        """A device that gives everything one UID does not cost the square of what it sends."""
        asked: list[str] = []

        def asks(_: PlacedRecord, version: KnownVersion) -> bool:
            asked.append(version.wire_sha256)
            return False

        commit(catalog, *(record("1.1", f"content {number}") for number in range(20)), equal=asks)
        asked.clear()
        commit(catalog, record("1.1", "another"), equal=asks)
        assert asked == [record("1.1", f"content {number}").wire_sha256 for number in (0, 19, 18, 17)]

    def test_a_conflict_is_noted_before_the_commit_and_its_failure_undoes_everything(
        self, catalog: Catalog, reader: CatalogReader
    ) -> None:
        first = record("1.1", "a")
        commit(catalog, first)
        seen: list[tuple[str, str, int]] = []

        def fails(one: PlacedRecord, stays: KnownVersion) -> None:
            seen.append((one.record.wire_sha256, stays.wire_sha256, len(reader.versions(SCOPE, "1.1"))))
            raise RuntimeError("the journal is away")

        batch = [placed(record("1.7")), placed(record("1.1", "b"))]
        with pytest.raises(RuntimeError, match="the journal is away"):
            catalog.commit_batch(batch, equal=never_equal, on_conflict=fails)
        assert seen == [(record("1.1", "b").wire_sha256, first.wire_sha256, 1)]
        assert current(reader, "1.2", "1.7") == []
        assert reader.counters(TENANT)["instances"] == 1

    def test_a_batch_is_known_by_its_segments(self, catalog: Catalog) -> None:
        """Also if nothing in it was new, or all of it lies elsewhere."""
        one, key = placed(record("1.1")), SegmentKey(f"{TENANT}/2026/03/01/batch.tar")
        for segment in (key, SegmentKey(f"{TENANT}/2026/03/01/again.tar")):
            assert not catalog.has_committed(segment)
            catalog.commit_batch([one], equal=never_equal, on_conflict=not_noted, segments=[segment])
            assert catalog.has_committed(segment)
        assert catalog.has_committed(one.location.segment)

    def test_a_batch_of_which_nothing_is_left_is_known_too(self, catalog: Catalog) -> None:
        key = SegmentKey(f"{TENANT}/2026/03/01/batch.tar")
        assert catalog.commit_batch([], equal=never_equal, on_conflict=not_noted, segments=[key]) == []
        assert catalog.has_committed(key)

    def test_a_version_whose_segment_was_lost_is_relocated_once(self, catalog: Catalog, reader: CatalogReader) -> None:
        first, other = record("1.1", "a"), record("1.1", "b")
        commit(catalog, first, other)
        before = dict(reader.counters(TENANT))
        old = placed(other)
        there = replace(old.location, segment=old.location.segment.replace(".tar", "0.tar"), offset=0, size_bytes=7)
        again = replace(old, location=there)
        assert catalog.relocate(again, lost=old.location)
        assert not catalog.relocate(replace(old, location=replace(there, offset=1)), lost=old.location)
        assert not catalog.relocate(placed(record("1.9")), lost=old.location)
        locations = [version.location for version, _ in reader.versions(SCOPE, "1.1")]
        assert locations == [placed(first).location, there]
        assert catalog.has_committed(there.segment)
        assert reader.counters(TENANT) == {**before, "bytes": before["bytes"] + 7 - old.location.size_bytes}
        assert current(reader, "1.2", "1.1") == [first.wire_sha256]

    def test_known_is_what_is_committed(self, catalog: Catalog) -> None:
        commit(catalog, record("1.1", "a"))
        commit(catalog, record("1.1", "b"))
        known = catalog.known(TENANT, ["1.1", "1.2", "1.1"])
        assert list(known) == ["1.1"]
        assert [(version.current, version.location.segment) for version in known["1.1"]] == [
            (True, "default/a.tar"),
            (False, "default/a.tar"),
        ]

    def test_tenants_do_not_see_each_other(self, catalog: Catalog, reader: CatalogReader) -> None:
        north = Scope(principal="test", tenant="north")
        assert commit(catalog, record("1.1", "a"), record("1.1", "b", tenant="north")) == [NEW, NEW]
        assert [one.record.wire_sha256 for one in reader.instances(north, "1.2")] == [record("1.1", "b").wire_sha256]
        assert reader.conflicts(SCOPE) == []
        assert reader.counters("north")["instances"] == 1
        assert catalog.known("south", ["1.1"]) == {}

    def test_using_another_version_and_back(self, catalog: Catalog, reader: CatalogReader) -> None:
        first, other = record("1.1", "a"), record("1.1", "b")
        commit(catalog, first, other)
        assert use(catalog, other, "d1")
        assert current(reader, "1.2", "1.1") == [other.wire_sha256]
        assert use(catalog, first, "d2")
        assert current(reader, "1.2", "1.1") == [first.wire_sha256]
        assert len(reader.versions(SCOPE, "1.1")) == 2

    def test_using_a_version_moves_the_instance_to_its_study_and_back(
        self, catalog: Catalog, reader: CatalogReader
    ) -> None:
        here, there = record("1.1", study="1.2"), record("1.1", study="9.9")
        commit(catalog, here, there, record("1.2", study="1.2"))
        use(catalog, there, "d1")
        assert (current(reader, "1.2", "1.1"), current(reader, "9.9", "1.1")) == ([], [there.wire_sha256])
        counts = {one.values["StudyInstanceUID"]: one for one in _studies(reader)}
        assert {
            uid: (one.values["NumberOfStudyRelatedInstances"], one.conflict_count) for uid, one in counts.items()
        } == {
            "1.2": ("1", 0),
            "9.9": ("1", 1),
        }
        assert reader.counters(TENANT)["studies"] == 2
        use(catalog, here, "d2")
        assert [one.values["StudyInstanceUID"] for one in _studies(reader)] == ["1.2"]
        counters = reader.counters(TENANT)
        assert (counters["studies"], counters["series"], counters["instances"], counters["conflicts"]) == (1, 1, 2, 1)

    def test_a_decision_is_executed_once(self, catalog: Catalog, reader: CatalogReader) -> None:
        first, other = record("1.1", "a"), record("1.1", "b")
        commit(catalog, first, other)
        assert use(catalog, other, "d1")
        assert use(catalog, first, "d2")
        assert use(catalog, other, "d1"), "redelivered"
        assert current(reader, "1.2", "1.1") == [first.wire_sha256]

    def test_a_decision_about_nothing(self, catalog: Catalog) -> None:
        commit(catalog, record("1.1", "a"))
        assert not use(catalog, record("1.1", "b"))
        assert not use(catalog, record("1.9"))
        discard = DiscardQuarantined(tenant="nobody", quarantine_id="x")
        assert not catalog.apply(discard, decision_id="d9", decided_at="", decided_by="")

    def test_quarantine_is_entered_once_and_closed_by_a_decision(self, catalog: Catalog, reader: CatalogReader) -> None:
        entry = placed(quarantined("q1"))
        for _ in range(2):
            verdicts = catalog.commit_batch([entry, entry], equal=never_equal, on_conflict=not_noted)
            assert verdicts == [QUARANTINED, QUARANTINED]
        (shown,) = reader.quarantined(SCOPE)
        assert (shown["id"], shown["reason"], shown["state"]) == ("q1", "parse_failed", "open")
        assert (shown["location"], shown["calling_ae"]) == (entry.location, "MODALITY")
        assert reader.counters(TENANT)["quarantined"] == 1
        discard = DiscardQuarantined(tenant=TENANT, quarantine_id="q1")
        assert catalog.apply(discard, decision_id="d1", decided_at="now", decided_by="ops")
        assert reader.quarantined(SCOPE) == []
        (shown,) = reader.quarantined(SCOPE, include_closed=True)
        assert (shown["state"], shown["decided_by"]) == ("discarded", "ops")
        assert reader.counters(TENANT)["quarantined"] == 0
        catalog.commit_batch([entry], equal=never_equal, on_conflict=not_noted)
        assert reader.quarantined(SCOPE) == [], "what was discarded stays so"

    def test_a_replay_that_fails_opens_the_entry_again(self, catalog: Catalog, reader: CatalogReader) -> None:
        entry = placed(quarantined("q1"))
        catalog.commit_batch([entry], equal=never_equal, on_conflict=not_noted)
        replay = ReplayQuarantined(tenant=TENANT, quarantine_id="q1")
        assert catalog.apply(replay, decision_id="d1", decided_at="now", decided_by="ops")
        assert reader.quarantined(SCOPE) == []
        catalog.commit_batch([entry], equal=never_equal, on_conflict=not_noted)
        assert len(reader.quarantined(SCOPE)) == 1
        assert reader.counters(TENANT)["quarantined"] == 1

    def test_everything_is_there_after_reopening(
        self, catalog: Catalog, reader: CatalogReader, reopened: Reopen
    ) -> None:
        commit(catalog, record("1.1", "a"), record("1.1", "b"))
        again = reopened()
        assert commit(again, record("1.1", "a"), record("1.1", "b")) == [SAME, SAME]
        assert reader.counters(TENANT)["versions"] == 2

    def test_readers_see_whole_batches(self, catalog: Catalog, reader: CatalogReader) -> None:
        stop, torn = threading.Event(), []

        def watch() -> None:
            while not stop.is_set():
                seen = len(list(reader.instances(SCOPE, "1.2")))
                if seen % 50:
                    torn.append(seen)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for number in range(6):
            commit(catalog, *(record(f"1.{number}.{one}") for one in range(50)))
        stop.set()
        watcher.join(10)
        assert torn == []
        assert len(list(reader.instances(SCOPE, "1.2"))) == 300

    def test_an_empty_batch(self, catalog: Catalog) -> None:
        assert list(catalog.commit_batch([], equal=never_equal, on_conflict=not_noted)) == []

    def test_counters(self, catalog: Catalog, reader: CatalogReader) -> None:
        commit(catalog, record("1.1", study="1.2"), record("1.2", study="1.2"), record("2.1", study="2.2"))
        commit(catalog, record("1.1", "b", study="1.2"), record("1.1", "c", study="1.2"))
        assert reader.counters(TENANT) == {
            "studies": 2,
            "series": 2,
            "instances": 3,
            "versions": 5,
            "conflicts": 1,
            "mixed": 0,
            "quarantined": 0,
            "decisions": 0,
            "bytes": 5 * 512,
        }

    def test_quarantine_entries_are_found_by_id_and_by_what_their_sender_named(
        self, catalog: Catalog, reader: CatalogReader
    ) -> None:
        named = [
            replace(quarantined(f"q{number}"), attributes=attributes(f"q{number}", study_uid=f"1.{number}"))
            for number in (1, 11)
        ]
        catalog.commit_batch([placed(one) for one in named], equal=never_equal, on_conflict=not_noted)
        assert [one["id"] for one in reader.quarantined(SCOPE, entry_id="q1")] == ["q1"]
        assert [one["id"] for one in reader.quarantined(SCOPE, about="1.1")] == ["q1"]
        assert [one["id"] for one in reader.quarantined(SCOPE, about="q11")] == ["q11"]
        assert reader.quarantined(SCOPE, about="%") == reader.quarantined(SCOPE, entry_id="q") == []

    def test_what_the_first_instance_left_empty_is_filled_by_later_ones(
        self, catalog: Catalog, reader: CatalogReader
    ) -> None:
        bare = PatientAttributes(), StudyAttributes(study_instance_uid="1.2", study_date="20260301")
        full = StudyAttributes(study_instance_uid="1.2", study_date="19990101", accession_number="A1")
        commit(catalog, record("1.1", patient=bare[0], study=bare[1]))
        commit(catalog, record("1.2", patient=PatientAttributes(patient_id="P1", name="DOE^JANE"), study=full))
        commit(catalog, record("1.3", patient=PatientAttributes(patient_id="P1", name="ROE^OTHER", sex="F")))
        (found,) = reader.search(SCOPE, Query(level="study", matches={}, limit=9, text="doe a1"))
        said = {name: found.values[name] for name in ("PatientName", "PatientID", "PatientSex", "AccessionNumber")}
        assert said == {"PatientName": "DOE^JANE", "PatientID": "P1", "PatientSex": "F", "AccessionNumber": "A1"}
        assert found.values["StudyDate"] == "20260301"
        assert not found.is_mixed
        by_name = {"PatientName": Wildcard(pattern="doe*")}
        assert reader.count(SCOPE, Query(level="study", matches=by_name, limit=9)) == 1

    @pytest.mark.parametrize("together", [True, False])
    def test_a_study_of_two_patients_is_marked(self, catalog: Catalog, reader: CatalogReader, together: bool) -> None:
        people = [("P1", "DOE^JANE"), ("", ""), ("P2", "ROE^RICHARD"), ("P1", "DOE^JANE"), ("P3", "POE^ED")]
        records = [
            record(f"1.{number}", patient=PatientAttributes(patient_id=one, name=name))
            for number, (one, name) in enumerate(people)
        ]
        for batch in [records] if together else [[one] for one in records]:
            commit(catalog, *batch)
        commit(catalog, record("5.1", study="5"), record("5.2", study="5", patient=PatientAttributes()))
        marks = {
            found.values["StudyInstanceUID"]: found.is_mixed
            for found in reader.search(SCOPE, Query(level="study", matches={}, limit=9))
        }
        assert marks == {"1.2": True, "5": False}
        assert reader.counters(TENANT)["mixed"] == 1
        assert {row["patient_ids_differ"] for row in reader.trace(SCOPE, "1.2")} >= {True}
        for word in ("doe", "richard", "p2", "poe"):
            (found,) = reader.search(SCOPE, Query(level="study", matches={}, limit=9, text=word))[-1:]
            assert (found.values["StudyInstanceUID"], found.values["PatientName"]) == ("1.2", "DOE^JANE")

    def test_a_patient_id_too_long_for_an_index_is_no_mark(self, catalog: Catalog, reader: CatalogReader) -> None:
        commit(catalog, record("1.1", patient=PatientAttributes(patient_id=random_text(4096))))
        commit(catalog, record("1.2", patient=PatientAttributes(patient_id="P2")))
        (found,) = reader.search(SCOPE, Query(level="study", matches={}, limit=9))
        assert not found.is_mixed

    def test_trace_tells_every_version_and_no_patient(self, catalog: Catalog, reader: CatalogReader) -> None:
        commit(catalog, record("1.1", "a"), record("1.1", "b"), record("1.2"))
        for uid, rows in (("1.1", 2), ("1.2.1", 3), ("1.2", 1)):
            assert len(reader.trace(SCOPE, uid)) == rows
        (first, second) = reader.trace(SCOPE, "1.1")
        assert (first["verdict"], first["current"], second["verdict"], second["current"]) == (
            "new",
            True,
            "conflict",
            False,
        )
        assert "DOE" not in repr(first)
        assert reader.trace(SCOPE, "7.7") == []

    def test_placed_gives_every_version_and_every_quarantine_entry(
        self, catalog: Catalog, reader: CatalogReader
    ) -> None:
        a, b, c = placed(record("1.1", "a")), placed(record("1.1", "b")), placed(quarantined("q1"))
        catalog.commit_batch([c, a, b], equal=never_equal, on_conflict=not_noted)
        assert list(reader.placed()) == [(a, True), (b, False), (c, False)]

    def test_texts_that_a_database_may_refuse(self, catalog: Catalog, reader: CatalogReader) -> None:
        """A NUL, and values far longer than the standard allows, of which no byte compresses; the record keeps them."""
        long = random_text(4096)
        person = PatientAttributes(patient_id=f"{long}\0", issuer=long, name=f"{long}^{long}", birth_date=long)
        study = StudyAttributes(
            study_instance_uid="1.2", study_date=long, study_time=long, accession_number=long, study_id="\0",
            referring_physician_name=long, study_description="a\0b",
        )  # fmt: skip
        series = SeriesAttributes(series_instance_uid="1.2.1", modality=long, series_number=long)
        odd = record("1.1", calling_ae="A\0E", source="/edge/\0", study=study, series=series, patient=person)
        entry = quarantined("q1")
        entry = replace(entry, detail="a\0b", attributes=replace(entry.attributes, called_ae="B\0"))
        batch = [placed(odd), placed(record("1.3", study="1.3")), placed(entry)]
        assert catalog.commit_batch(batch, equal=never_equal, on_conflict=not_noted) == [NEW, NEW, QUARANTINED]
        (seen,) = reader.instances(SCOPE, "1.2")
        assert seen.record == odd
        (found,) = reader.search(SCOPE, Query(level="study", matches={}, limit=9, text=long[2000:2100]))
        assert long.startswith(found.values["AccessionNumber"])
        assert len(found.values["AccessionNumber"]) > 200
        (shown,) = reader.quarantined(SCOPE)
        assert (shown["detail"], shown["called_ae"]) == ("ab", "B")

    def test_text_compares_by_code_point(self, catalog: Catalog, reader: CatalogReader) -> None:
        """Neither case, accents nor scripts follow a language's order."""
        texts = ["a", "B", "é", "Z", "ß", "_", "1", "Ω", "太"]
        numbered = enumerate(texts)
        commit(catalog, *(record(f"1.{n}", study=dated(f"2.{n}", study_date=text)) for n, text in numbered))
        dates = [one.values["StudyDate"] for one in _studies(reader)]
        assert dates == sorted(texts, reverse=True)
        above = Query(level="study", matches={"StudyDate": Between(low="a", high="é")}, limit=9)
        assert [one.values["StudyDate"] for one in reader.search(SCOPE, above)] == ["é", "ß", "a"]

    def test_attempts_are_kept(self, catalog: Catalog, reopened: Reopen) -> None:
        assert catalog.load_attempts("routine/0") is None
        for page in ('{"a": 1}', '{"a": 2}'):
            catalog.save_attempts("routine/0", page)
        catalog.save_attempts("routine/1", "{}")
        again = reopened()
        assert (again.load_attempts("routine/0"), again.load_attempts("routine/1")) == ('{"a": 2}', "{}")
        assert again.load_attempts("urgent/0") is None

    def test_large_batches_of_every_kind(self, catalog: Catalog, reader: CatalogReader) -> None:
        """More rows than one statement takes: instances, conflicts, people and quarantine entries."""
        people = [PatientAttributes(patient_id=f"P{n % 700}", issuer=f"{n % 2}") for n in range(1200)]
        firsts = [record(f"1.{n}", study=f"2.{n % 600}", patient=one) for n, one in enumerate(people)]
        others = [record(f"1.{n}", "b", study=f"2.{n % 600}", patient=one) for n, one in enumerate(people)]
        assert set(map(type, commit(catalog, *firsts))) == {New}
        entries = [placed(quarantined(f"q{n % 550}")) for n in range(600)]
        verdicts = catalog.commit_batch(
            [*map(placed, others), *entries, *map(placed, firsts)], equal=never_equal, on_conflict=not_noted
        )
        assert Counter(type(one).__name__ for one in verdicts) == {"Conflict": 1200, "Quarantined": 600, "Same": 1200}
        counters = reader.counters(TENANT)
        assert (counters["instances"], counters["versions"], counters["studies"]) == (1200, 2400, 600)
        assert (counters["conflicts"], counters["quarantined"]) == (1200, 550)
        assert len(reader.conflicts(SCOPE)) == 1200
        replay = ReplayQuarantined(tenant=TENANT, quarantine_id="q7")
        assert catalog.apply(replay, decision_id="d1", decided_at="now", decided_by="ops")
        catalog.commit_batch(entries, equal=never_equal, on_conflict=not_noted)
        assert reader.counters(TENANT)["quarantined"] == 550


def random_text(length: int) -> str:
    """Letters of which no two runs are alike: nothing that stores them can make them shorter."""
    return "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyzàéîøü山田太郎", k=length))


def dated(uid: str, **given: str) -> StudyAttributes:
    return StudyAttributes(study_instance_uid=uid, **given)


def _studies(reader: CatalogReader) -> list[Found]:
    return list(reader.search(SCOPE, Query(level="study", matches={}, limit=100)))
