"""Searching (PS3.18 10.6), over a real catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from archive.search import KEYS
from dicomweb.attributes import ATTRIBUTES, LEVELS, at_or_above
from instances.decode import IsolatedDecoder
from tests.datasets import ROOT, mr_dataset
from tests.dicomweb.library import BASE, Library

pytestmark = pytest.mark.anyio
STUDY = "0020000D"
SERIES = "0020000E"
INSTANCE = "00080018"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, decoder: IsolatedDecoder) -> Iterator[Library]:
    """Three studies; the second of two series with two instances each. Tests only read the default tenant."""
    library = Library(tmp_path_factory.mktemp("filled"), decoder)
    library.add(
        mr_dataset(1, study=1, PatientName="DUPONT^MARIE", StudyDate="20260101", AccessionNumber="A*1", Modality="MR")
    )
    library.add(
        *[
            mr_dataset(number, study=2, series=series, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 192",
                       StudyDate="20260215", Modality=modality, StudyTime="101530")
            for series, modality in ((1, "CT"), (2, "SR"))
            for number in (1, 2)
        ]
    )  # fmt: skip
    library.add(mr_dataset(1, study=3, PatientName="DURAND^PAUL", StudyDate="20260301", StudyID="X_3", Modality="CT"))
    yield library
    library.close()


async def found(library: Library, path: str, **parameters: str) -> list[Mapping[str, Mapping[str, list[str]]]]:
    async with library.client() as client:
        answer = await client.get(f"/dicom-web{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    rows: list[Mapping[str, Mapping[str, list[str]]]] = answer.json()
    return rows


def last_numbers(rows: list[Mapping[str, Mapping[str, list[str]]]], tag: str) -> list[str]:
    return [row[tag]["Value"][0].removeprefix(f"{ROOT}.") for row in rows]


@pytest.mark.parametrize(
    ("parameters", "studies"),
    [
        ({}, ["3", "2", "1"]),
        ({"StudyInstanceUID": f"{ROOT}.1"}, ["1"]),
        ({"StudyInstanceUID": f"{ROOT}.1,{ROOT}.3"}, ["3", "1"]),
        ({"StudyInstanceUID": f"{ROOT}.1\\{ROOT}.2"}, ["2", "1"]),
        ({"0020000D": f"{ROOT}.2"}, ["2"]),
        ({"0020000d": f"{ROOT}.2"}, ["2"]),
        ({"PatientName": "DU*"}, ["3", "1"]),
        ({"PatientName": "du?and*"}, ["3"]),
        ({"PatientName": "müller*"}, ["2"]),
        ({"PatientName": "DUPONT"}, []),
        ({"PatientName": "*"}, ["3", "2", "1"]),
        ({"PatientName": ""}, ["3", "2", "1"]),
        ({"00100020": "PLANTED-ID-7719"}, ["3", "2", "1"]),
        ({"StudyID": "X_*"}, ["3"]),
        ({"StudyID": "X%"}, []),
        ({"StudyDate": "20260215"}, ["2"]),
        ({"StudyDate": "20260102-20260215"}, ["2"]),
        ({"StudyDate": "20260215-"}, ["3", "2"]),
        ({"StudyDate": "-20260215"}, ["2", "1"]),
        ({"StudyTime": "1015-1016"}, ["2"]),
        ({"StudyTime": "10"}, ["2"]),
        ({"StudyTime": "1014"}, []),
        ({"ModalitiesInStudy": "CT"}, ["3", "2"]),
        ({"ModalitiesInStudy": "MR,SR"}, ["2", "1"]),
        ({"ModalitiesInStudy": "MR\\SR"}, ["2", "1"]),
        ({"PatientBirthDate": "19310407", "PatientSex": "O", "StudyDate": "20260301"}, ["3"]),
        ({"limit": "1"}, ["3"]),
        ({"limit": "1", "offset": "1"}, ["2"]),
        ({"offset": "3"}, []),
        ({"limit": "0"}, []),
    ],
)
async def test_matching(filled: Library, parameters: dict[str, str], studies: list[str]) -> None:
    assert last_numbers(await found(filled, "/studies", **parameters), STUDY) == studies


@pytest.mark.parametrize(
    ("path", "parameters", "tag", "numbers"),
    [
        (f"/studies/{ROOT}.2/series", {}, SERIES, ["2.1", "2.2"]),
        (f"/studies/{ROOT}.2/series", {"Modality": "SR"}, SERIES, ["2.2"]),
        (f"/studies/{ROOT}.2/series", {"PatientName": "DU*"}, SERIES, []),
        (f"/studies/{ROOT}.2/series", {"StudyInstanceUID": f"{ROOT}.1"}, SERIES, []),
        ("/series", {"Modality": "CT"}, SERIES, ["3.1", "2.1"]),
        ("/series", {"SeriesNumber": "2"}, SERIES, ["2.2"]),
        (f"/studies/{ROOT}.2/instances", {}, INSTANCE, ["2.1.1", "2.1.2", "2.2.1", "2.2.2"]),
        (f"/studies/{ROOT}.2/series/{ROOT}.2.2/instances", {}, INSTANCE, ["2.2.1", "2.2.2"]),
        (f"/studies/{ROOT}.2/instances", {"InstanceNumber": "2"}, INSTANCE, ["2.1.2", "2.2.2"]),
        ("/instances", {"Modality": "MR"}, INSTANCE, ["1.1.1"]),
        ("/instances", {"Rows": "64", "StudyDate": "20260301"}, INSTANCE, ["3.1.1"]),
        ("/instances", {"Rows": "65"}, INSTANCE, []),
    ],
)
async def test_levels(filled: Library, path: str, parameters: dict[str, str], tag: str, numbers: list[str]) -> None:
    assert last_numbers(await found(filled, path, **parameters), tag) == numbers


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/studies", {"Favourite": "1"}),
        ("/studies", {"PatientAge": "030Y"}),
        ("/studies", {"00101010": "030Y"}),
        ("/studies", {"Modality": "CT"}),
        ("/studies", {"NumberOfStudyRelatedInstances": "1"}),
        ("/studies", {"StudyDate": "2026-01-01"}),
        ("/studies", {"StudyDate": "202601*"}),
        ("/studies", {"StudyDate": "-"}),
        ("/studies", {"StudyTime": "25h"}),
        ("/studies", {"StudyInstanceUID": "../../etc/passwd"}),
        ("/studies", {"StudyInstanceUID": "1.2.*"}),
        ("/studies", {"PatientID": "*\0zzz"}),
        ("/studies", {"PatientName": "*" + 2_000 * "\ufdfa"}),
        ("/studies", {"limit": "-1"}),
        ("/studies", {"limit": "ten"}),
        ("/studies", {"offset": "1e3"}),
        ("/studies", {"includefield": "not a field"}),
        ("/instances", {"InstanceNumber": "one"}),
    ],
)
async def test_what_cannot_be_matched_is_refused_in_a_sentence(
    filled: Library, path: str, parameters: dict[str, str]
) -> None:
    async with filled.client() as client:
        answer = await client.get(f"/dicom-web{path}", params=parameters)
    assert answer.status_code == 400
    sentence = answer.json()["error"]
    assert sentence.endswith(".")
    assert not [value for value in parameters.values() if len(value) > 3 and value in sentence]


async def test_a_key_given_twice_is_refused_but_uids_add_up(filled: Library) -> None:
    async with filled.client() as client:
        twice = await client.get("/dicom-web/studies?PatientID=A&PatientID=B")
        uids = await client.get(f"/dicom-web/studies?StudyInstanceUID={ROOT}.1&StudyInstanceUID={ROOT}.2")
    assert twice.status_code == 400
    assert len(uids.json()) == 2


async def test_what_a_study_row_holds(filled: Library) -> None:
    [row] = await found(filled, "/studies", StudyInstanceUID=f"{ROOT}.2")
    assert row["00080005"]["Value"] == ["ISO_IR 192"]
    assert row["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert sorted(row["00080061"]["Value"]) == ["CT", "SR"]
    assert row["00201206"]["Value"] == [2]
    assert row["00201208"]["Value"] == [4]
    assert row["00081190"]["Value"] == [f"{BASE}/dicom-web/studies/{ROOT}.2"]
    assert row["00080056"]["Value"] == ["ONLINE"]
    assert "00081030" not in row
    assert list(row) == sorted(row)


async def test_parents_attributes_and_included_fields(filled: Library) -> None:
    [plain, _] = await found(filled, f"/studies/{ROOT}.2/series")
    assert plain["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert plain["00201209"]["Value"] == [2]
    [named] = await found(filled, "/studies", StudyDate="20260301", includefield="StudyDescription,00081010,0040A730")
    assert named["00081030"]["Value"] == ["Brain"]
    [everything] = await found(filled, "/studies", StudyDate="20260301", includefield="all")
    assert everything["00081030"]["Value"] == ["Brain"]
    [matched] = await found(filled, "/studies", StudyDate="20260301", StudyDescription="Br*")
    assert matched["00081030"]["Value"] == ["Brain"]


async def test_an_empty_answer_is_an_empty_list(library: Library) -> None:
    assert await found(library, "/studies") == []


async def test_warnings_say_what_was_not_done(filled: Library) -> None:
    app = filled.app(query_limit_max=2)
    async with filled.client(app) as client:
        limited = await client.get("/dicom-web/studies")
        asked = await client.get("/dicom-web/studies?limit=1")
        all_of_them = await client.get("/dicom-web/studies?StudyDate=20260101-20260215")
        fuzzy = await client.get("/dicom-web/studies?fuzzymatching=true&limit=1")
    assert len(limited.json()) == 2
    assert limited.headers["warning"].startswith("299 ")
    assert "warning" not in asked.headers
    assert len(all_of_them.json()) == 2
    assert "warning" not in all_of_them.headers
    assert "fuzzymatching" in fuzzy.headers["warning"]


async def test_other_representations_are_not_acceptable(filled: Library) -> None:
    async with filled.client() as client:
        xml = await client.get(
            "/dicom-web/studies", headers={"Accept": 'multipart/related; type="application/dicom+xml"'}
        )
        json = await client.get("/dicom-web/studies", headers={"Accept": "application/json"})
        parameter = await client.get(
            "/dicom-web/studies?accept=application/dicom%2Bjson", headers={"Accept": "text/html"}
        )
    assert xml.status_code == 406
    assert json.headers["content-type"] == "application/json"
    assert parameter.status_code == 200


async def test_a_search_may_travel_in_a_body(filled: Library) -> None:
    async with filled.client() as client:
        answer = await client.post("/dicom-web/search/studies", data={"PatientName": "DU*", "limit": "1"})
        series = await client.post(f"/dicom-web/search/studies/{ROOT}.2/series", data={"Modality": "SR"})
        large = await client.post("/dicom-web/search/studies", content=b"PatientName=" + b"A" * 40_000)
    assert last_numbers(answer.json(), STUDY) == ["3"]
    assert last_numbers(series.json(), SERIES) == ["2.2"]
    assert answer.json()[0]["00081190"]["Value"] == [f"{BASE}/dicom-web/studies/{ROOT}.3"]
    assert large.status_code == 413


async def test_tenants_do_not_see_each_other(filled: Library) -> None:
    filled.add(mr_dataset(1, study=9), tenant="north")
    async with filled.client() as client:
        north = await client.get("/t/north/dicom-web/studies")
        default = await client.get("/t/default/dicom-web/studies")
        unknown = await client.get("/t/south/dicom-web/studies")
        impossible = await client.get("/t/No%20Tenant/dicom-web/studies")
    assert last_numbers(north.json(), STUDY) == ["9"]
    assert north.json()[0]["00081190"]["Value"] == [f"{BASE}/t/north/dicom-web/studies/{ROOT}.9"]
    assert last_numbers(default.json(), STUDY) == ["3", "2", "1"]
    assert unknown.json() == []
    assert impossible.status_code == 404


def test_the_table_and_the_catalog_match_the_same_keys() -> None:
    for level in LEVELS:
        ours = {a.keyword for a in ATTRIBUTES.values() if a.matchable and a.level in at_or_above(level)}
        assert ours == set(KEYS[level])
