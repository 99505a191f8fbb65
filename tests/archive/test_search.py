"""QIDO-RS matching, order and paging: PS3.4 C.2.2.2 as a table, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.catalog import Between, Match, OneOf, Query, Scope, Wildcard
from archive.database import reader_engine
from archive.search import KEYS, answer_to
from archive.sql_catalog import SqlCatalog, open_catalog
from archive.sql_reader import SqlCatalogReader
from schemas.record import (
    InstanceAttributes,
    InstanceRecord,
    PatientAttributes,
    SeriesAttributes,
    StudyAttributes,
)
from tests.archive.catalogs import KINDS, opened
from tests.archive.contract_catalog import commit, use
from tests.archive.samples import SCOPE, TENANT, StepClock, record


def _instance(uid: str, study: StudyAttributes, series: SeriesAttributes, patient: PatientAttributes) -> InstanceRecord:
    number = uid.rpartition(".")[2]
    described = InstanceAttributes(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4", sop_instance_uid=uid, instance_number=number, rows=512, columns=256,
        bits_allocated=16, number_of_frames=0,
    )  # fmt: skip
    return record(uid, study=study, series=series, patient=patient, instance=described)


BRAIN = StudyAttributes(
    study_instance_uid="1.1",
    study_date="20260301",
    study_time="081530.5",
    accession_number="ACC_1",
    study_description="Brain 100%",
    referring_physician_name="HOUSE^GREG",
    institution_name="CHU Nord",
    study_id="7",
)
KNEE = StudyAttributes(study_instance_uid="1.2", study_date="20260302", study_time="0815", accession_number="ACCX1")
OLD = StudyAttributes(study_instance_uid="1.3", study_date="19991231", study_description="Thorax")
UNDATED = StudyAttributes(study_instance_uid="1.4")
JANE = PatientAttributes(patient_id="P1", issuer="NORD", name="Müller^Jane", birth_date="19310407", sex="F")
JOHN = PatientAttributes(patient_id="P10", name="DOE^JOHN^^^")
TARO = PatientAttributes(patient_id="P2", name="Yamada^Tarou=山田^太郎=やまだ^たろう")


def _series(uid: str, modality: str, number: str, **given: str) -> SeriesAttributes:
    return SeriesAttributes(series_instance_uid=uid, modality=modality, series_number=number, **given)


T1 = _series("1.1.1", "MR", "2", series_description="T1 axial", pps_start_date="20260301", body_part_examined="HEAD")
T2 = _series("1.1.2", "MR", "10", series_description="T2 sagittal", protocol_name="brain")
REPORT = _series("1.1.3", "SR", "")


@pytest.fixture(scope="module", params=KINDS)
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlCatalogReader]:
    with opened(request, tmp_path_factory.mktemp("search")) as (catalog, reading):
        _fill(catalog)
        yield reading


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SqlCatalog, SqlCatalogReader]]:
    """An empty catalog and its reader."""
    with opened(request, tmp_path) as catalog_and_reader:
        yield catalog_and_reader


def _fill(catalog: SqlCatalog) -> None:
    commit(
        catalog,
        _instance("1.1.2.10", BRAIN, T2, JANE),
        _instance("1.1.2.9", BRAIN, T2, JANE),
        _instance("1.1.1.1", BRAIN, T1, JANE),
        _instance("1.1.3.1", BRAIN, REPORT, JANE),
        _instance("1.2.1.1", KNEE, _series("1.2.1", "CT", "1"), JOHN),
        _instance("1.3.1.1", OLD, _series("1.3.1", "CR", "x"), TARO),
        _instance("1.4.1.1", UNDATED, _series("1.4.1", "CR", "1"), PatientAttributes()),
        record("5.5", tenant="other"),
    )


def studies(reader: SqlCatalogReader, text: str = "", **matches: Match) -> list[str]:
    found = reader.search(SCOPE, Query(level="study", matches=matches, limit=100, text=text))
    return [one.values["StudyInstanceUID"] for one in found]


ALL = ["1.2", "1.1", "1.3", "1.4"]


@pytest.mark.parametrize(
    ("keyword", "match", "expected"),
    [
        ("StudyInstanceUID", OneOf(values=("1.1",)), ["1.1"]),
        ("StudyInstanceUID", OneOf(values=("1.1", "1.3", "9")), ["1.1", "1.3"]),
        ("StudyDate", OneOf(values=("20260301",)), ["1.1"]),
        ("StudyDate", Between(low="20260301", high="20260302"), ["1.2", "1.1"]),
        ("StudyDate", Between(low="20260302"), ["1.2"]),
        ("StudyDate", Between(high="20260301"), ["1.1", "1.3"]),
        ("StudyTime", Between(low="0815", high="0815"), ["1.2", "1.1"]),
        ("StudyTime", Between(low="081500.000000", high="081500"), ["1.2"]),
        ("StudyTime", Between(low="081531"), []),
        ("AccessionNumber", OneOf(values=("ACC_1",)), ["1.1"]),
        ("AccessionNumber", Wildcard(pattern="ACC_*"), ["1.1"]),
        ("AccessionNumber", Wildcard(pattern="ACC?1"), ["1.2", "1.1"]),
        ("AccessionNumber", Wildcard(pattern="acc*"), []),
        ("ModalitiesInStudy", OneOf(values=("MR",)), ["1.1"]),
        ("ModalitiesInStudy", OneOf(values=("SR", "CT")), ["1.2", "1.1"]),
        ("ModalitiesInStudy", Wildcard(pattern="?R"), ["1.1", "1.3", "1.4"]),
        ("ModalitiesInStudy", OneOf(values=("MR\\SR",)), []),
        ("ReferringPhysicianName", Wildcard(pattern="house*"), ["1.1"]),
        ("PatientName", OneOf(values=("müller^jane",)), ["1.1"]),
        ("PatientName", OneOf(values=("MULLER^JANE^^",)), ["1.1"]),
        ("PatientName", OneOf(values=("DOE^JOHN",)), ["1.2"]),
        ("PatientName", Wildcard(pattern="*^J*"), ["1.2", "1.1"]),
        ("PatientName", Wildcard(pattern="*山田*"), ["1.3"]),
        ("PatientName", OneOf(values=("Yamada^Tarou",)), ["1.3"]),
        ("PatientName", OneOf(values=("山田^太郎",)), ["1.3"]),
        ("PatientName", OneOf(values=("やまだ^たろう",)), ["1.3"]),
        ("PatientName", OneOf(values=("Yamada^Tarou=山田^太郎=やまだ^たろう",)), ["1.3"]),
        ("PatientName", OneOf(values=("山田",)), []),
        ("PatientName", Wildcard(pattern="山田*"), ["1.3"]),
        ("PatientName", Wildcard(pattern="やまだ*"), ["1.3"]),
        ("PatientName", Wildcard(pattern="*^Tarou"), ["1.3"]),
        ("PatientName", Wildcard(pattern="太郎*"), []),
        ("PatientName", OneOf(values=("DOE",)), []),
        ("PatientID", Wildcard(pattern="*\0zzz"), []),
        ("PatientID", OneOf(values=("P1",)), ["1.1"]),
        ("PatientID", Wildcard(pattern="P1*"), ["1.2", "1.1"]),
        ("PatientID", Wildcard(pattern="p1*"), []),
        ("PatientBirthDate", Between(low="1931", high="1931"), ["1.1"]),
        ("PatientSex", OneOf(values=("F",)), ["1.1"]),
        ("IssuerOfPatientID", OneOf(values=("NORD",)), ["1.1"]),
        ("StudyID", OneOf(values=("7",)), ["1.1"]),
        ("StudyDescription", Wildcard(pattern="*100%"), ["1.1"]),
        ("StudyDescription", Wildcard(pattern="%"), []),
        ("InstitutionName", Wildcard(pattern="CHU*"), ["1.1"]),
        ("PatientID", Wildcard(pattern="*"), ALL),
    ],
)
def test_study_keys(reader: SqlCatalogReader, keyword: str, match: Match, expected: list[str]) -> None:
    assert studies(reader, **{keyword: match}) == expected
    query = Query(level="study", matches={keyword: match}, limit=1)
    assert reader.count(SCOPE, query) == len(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ALL),
        ("muller", ["1.1"]),
        ("jane MÜL", ["1.1"]),
        ("jane doe", []),
        ("john doe", ["1.2"]),
        ("p1", ["1.2", "1.1"]),
        ("acc_1", ["1.1"]),
        ("太郎", ["1.3"]),
        ("%", []),
        ("_", ["1.1"]),
        ("mull^jan", ["1.1"]),
    ],
)
def test_the_search_as_you_type(reader: SqlCatalogReader, text: str, expected: list[str]) -> None:
    assert studies(reader, text) == expected


def test_keys_combine(reader: SqlCatalogReader) -> None:
    assert studies(reader, PatientName=Wildcard(pattern="*j*"), StudyDate=Between(low="20260302")) == ["1.2"]


def test_series_by_number_and_with_their_parents(reader: SqlCatalogReader) -> None:
    found = reader.search(SCOPE, Query(level="series", matches={"StudyInstanceUID": OneOf(values=("1.1",))}, limit=9))
    assert [one.values["SeriesInstanceUID"] for one in found] == ["1.1.1", "1.1.2", "1.1.3"]
    second = found[1].values
    assert (second["Modality"], second["SeriesNumber"], second["NumberOfSeriesRelatedInstances"]) == ("MR", "10", "2")
    assert (second["PatientName"], second["StudyDescription"]) == ("Müller^Jane", "Brain 100%")


@pytest.mark.parametrize(
    ("keyword", "match", "expected"),
    [
        ("Modality", OneOf(values=("MR",)), ["1.1.1", "1.1.2"]),
        ("SeriesNumber", OneOf(values=("10",)), ["1.1.2"]),
        ("SeriesDescription", Wildcard(pattern="T1*"), ["1.1.1"]),
        ("PerformedProcedureStepStartDate", Between(low="20260101"), ["1.1.1"]),
        ("BodyPartExamined", OneOf(values=("HEAD",)), ["1.1.1"]),
        ("ProtocolName", OneOf(values=("brain",)), ["1.1.2"]),
        ("SeriesInstanceUID", OneOf(values=("1.1.3", "1.2.1")), ["1.2.1", "1.1.3"]),
        ("PatientID", OneOf(values=("P10",)), ["1.2.1"]),
    ],
)
def test_series_keys(reader: SqlCatalogReader, keyword: str, match: Match, expected: list[str]) -> None:
    found = reader.search(SCOPE, Query(level="series", matches={keyword: match}, limit=9))
    assert [one.values["SeriesInstanceUID"] for one in found] == expected


@pytest.mark.parametrize(
    ("keyword", "match", "expected"),
    [
        ("StudyInstanceUID", OneOf(values=("1.1",)), ["1.1.1.1", "1.1.2.9", "1.1.2.10", "1.1.3.1"]),
        ("SOPInstanceUID", OneOf(values=("1.1.2.9",)), ["1.1.2.9"]),
        ("InstanceNumber", OneOf(values=("9",)), ["1.1.2.9"]),
        (
            "Rows",
            OneOf(values=("512",)),
            ["1.2.1.1", "1.1.1.1", "1.1.2.9", "1.1.2.10", "1.1.3.1", "1.3.1.1", "1.4.1.1"],
        ),
        ("Columns", OneOf(values=("255", "x")), []),
        ("BitsAllocated", OneOf(values=("8",)), []),
        ("SOPClassUID", OneOf(values=("1.2.840",)), []),
    ],
)
def test_instance_keys(reader: SqlCatalogReader, keyword: str, match: Match, expected: list[str]) -> None:
    found = reader.search(SCOPE, Query(level="instance", matches={keyword: match}, limit=99))
    assert [one.values["SOPInstanceUID"] for one in found] == expected


def test_values_of_a_study(reader: SqlCatalogReader) -> None:
    (found,) = reader.search(SCOPE, Query(level="study", matches={"StudyID": OneOf(values=("7",))}, limit=9))
    assert found.values["ModalitiesInStudy"] == "MR\\SR"
    assert (found.values["NumberOfStudyRelatedSeries"], found.values["NumberOfStudyRelatedInstances"]) == ("3", "4")
    assert found.received_at == "2026-03-01T08:15:00.000000Z"
    assert "AccessionNumber" in found.values
    (bare,) = reader.search(SCOPE, Query(level="study", matches={"StudyInstanceUID": OneOf(values=("1.4",))}, limit=9))
    assert "PatientName" not in bare.values, "what was not received is not given"


def test_paging_is_stable(reader: SqlCatalogReader) -> None:
    pages = [reader.search(SCOPE, Query(level="study", matches={}, limit=2, offset=at)) for at in (0, 2, 4)]
    assert [[one.values["StudyInstanceUID"] for one in page] for page in pages] == [ALL[:2], ALL[2:], []]


def test_every_key_can_be_matched_at_its_level(reader: SqlCatalogReader) -> None:
    for level, keywords in KEYS.items():
        for keyword in keywords:
            query = Query(level=level, matches={keyword: OneOf(values=("no such value",))}, limit=1)
            assert reader.search(SCOPE, query) == [], keyword


def test_a_key_of_a_lower_level_is_refused(reader: SqlCatalogReader) -> None:
    with pytest.raises(KeyError):
        reader.search(SCOPE, Query(level="study", matches={"SOPClassUID": OneOf(values=("1",))}, limit=1))


def test_other_tenants_are_not_found(reader: SqlCatalogReader) -> None:
    assert [
        one.values["StudyInstanceUID"]
        for one in reader.search(Scope(principal="t", tenant="other"), Query(level="study", matches={}, limit=9))
    ] == ["1.2"]
    assert reader.search(Scope(principal="t", tenant="none"), Query(level="study", matches={}, limit=9)) == []


def test_reused_patient_ids_are_not_merged(both: tuple[SqlCatalog, SqlCatalogReader]) -> None:
    """One number of two issuers is two patients; no number is nobody."""
    catalog, _ = both
    people = [PatientAttributes(patient_id="7", issuer="NORD"), PatientAttributes(patient_id="7", issuer="SUD")]
    people += [PatientAttributes(name="A"), PatientAttributes(name="B"), people[0]]
    commit(catalog, *(record(f"1.{n}", study=f"2.{n}", patient=one) for n, one in enumerate(people)))
    with catalog._engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT patient_row FROM study ORDER BY id").scalars().all()
    assert rows[0] == rows[4] != rows[1]
    assert rows[2:4] == [None, None]


def test_modalities_follow_a_version_that_moves(both: tuple[SqlCatalog, SqlCatalogReader]) -> None:
    catalog, reader = both
    here = record("1.1", study="1.2", series=_series("1.2.1", "MR", "1"))
    there = record("1.1", study="1.2", content="b", series=_series("1.2.2", "CT", "1"))
    commit(catalog, here, there)
    assert _modalities(reader) == "MR"
    use(catalog, there)
    assert _modalities(reader) == "CT"
    assert reader.counters(TENANT)["series"] == 1


def _modalities(reader: SqlCatalogReader) -> str:
    (found,) = reader.search(SCOPE, Query(level="study", matches={}, limit=9))
    return found.values["ModalitiesInStudy"]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(level="study", matches={}, limit=20), "study_by_date"),
        (Query(level="study", matches={"PatientID": OneOf(values=("P1",))}, limit=20), "study_by_patient_id"),
        (Query(level="study", matches={"AccessionNumber": OneOf(values=("A",))}, limit=20), "study_by_accession"),
        (Query(level="study", matches={"StudyDate": Between(low="20260301")}, limit=20), "study_by_date"),
        (Query(level="study", matches={"PatientName": Wildcard(pattern="DOE*")}, limit=20), "study_by_patient_name"),
        (Query(level="series", matches={"StudyInstanceUID": OneOf(values=("1.1",))}, limit=20), "study_instance_uid=?"),
        (
            Query(level="series", matches={"SeriesInstanceUID": OneOf(values=("1.1",))}, limit=20),
            "series_instance_uid=?",
        ),
        (
            Query(level="instance", matches={"SOPInstanceUID": OneOf(values=("1.1",))}, limit=20),
            "SEARCH sop USING PRIMARY KEY",
        ),
        (
            Query(level="instance", matches={"StudyInstanceUID": OneOf(values=("1.1",))}, limit=20),
            "study_instance_uid=?",
        ),
    ],
)
def test_searches_use_an_index(tmp_path: Path, query: Query, index: str) -> None:
    """On SQLite; for PostgreSQL see test_postgres_plans.py."""
    path = tmp_path / "catalog.sqlite"
    open_catalog(path, clock=StepClock()).close()
    engine = reader_engine(path)
    statement = answer_to(TENANT, query).rows.limit(query.limit).compile(engine, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN") for step in plan), plan
    if not query.matches:
        assert not any("TEMP B-TREE" in step for step in plan), "the study list is read in order, not sorted"
    engine.dispose()
