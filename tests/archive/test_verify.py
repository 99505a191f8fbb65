"""Verify finds each kind of damage, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archive.findings import FindingKind
from archive.original import OriginalDamaged, original, original_file
from archive.sql_catalog import open_catalog
from archive.sql_reader import open_reader
from archive.verify import Verification, verify
from ingest.large import local_claim_checks
from instances.part10 import split
from runtime.clock import SystemClock
from runtime.errors import Misconfigured
from schemas.record import InstanceRecord, MemberLocation
from segments.disk import SystemDisk
from tests.archive.house import House
from tests.archive.samples import SCOPE, member, unfileable
from tests.datasets import PLANTED, dataset_bytes, mr_dataset


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    opened.take(
        member(mr_dataset(1)), member(mr_dataset(2), keep=True), member(mr_dataset(1, seed=9)), unfileable("q1")
    )
    yield opened
    opened.close()


def kinds(done: Verification) -> list[FindingKind]:
    return [finding.kind for finding in done.findings]


def _path(house: House, key: str) -> Path:
    return house.folder / "archive" / "segments" / key


def _flip(house: House, location: MemberLocation, at: int) -> None:
    with _path(house, location.segment).open("r+b") as file:
        file.seek(location.offset + at)
        byte = file.read(1)
        file.seek(location.offset + at)
        file.write(bytes([byte[0] ^ 1]))


def test_a_sound_archive(house: House) -> None:
    seen: list[tuple[int, int]] = []
    done = verify(house.reader, house.store, lambda at, total: seen.append((at, total)))
    assert (done.findings, done.is_clean) == ([], True)
    assert (done.versions, done.quarantined, done.segments) == (3, 1, 2)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("place", ["first pixel", "last byte", "patient"])
def test_one_wrong_bit_is_found(house: House, place: str) -> None:
    for placed, _ in house.reader.placed():
        if not hasattr(placed.record, "pixel_offset"):
            continue
        at = {
            "first pixel": placed.record.frames[0][0] + 200,
            "last byte": placed.location.size_bytes - 1,
            "patient": 600,
        }
        _flip(house, placed.location, at[place])
        done = verify(house.reader, house.store)
        _flip(house, placed.location, at[place])
        assert kinds(done) == [FindingKind.ORIGINAL_DIFFERS]
        assert all(value not in repr(done.findings) for value in PLANTED.values())


def test_a_wrong_bit_in_quarantine_is_found(house: House) -> None:
    (entry,) = house.reader.quarantined(SCOPE)
    _flip(house, entry["location"], 3)
    assert kinds(verify(house.reader, house.store)) == [FindingKind.ORIGINAL_DIFFERS]


def test_a_missing_segment_is_an_error_for_each_version_in_it(house: House) -> None:
    (key,) = house.store.keys("default/")
    house.store.delete(key)
    done = verify(house.reader, house.store)
    assert kinds(done) == [FindingKind.SEGMENT_MISSING] * 4
    assert not done.is_clean


def test_a_segment_cut_short(house: House) -> None:
    (placed, *_) = [placed for placed, _ in house.reader.placed()]
    path = _path(house, placed.location.segment)
    path.write_bytes(path.read_bytes()[: placed.location.offset + 10])
    found = kinds(verify(house.reader, house.store))
    assert found == [FindingKind.MEMBER_DAMAGED] * 4 + [FindingKind.INDEX_DAMAGED]


def test_a_segment_that_nothing_refers_to_is_no_error(house: House) -> None:
    house.put([member(mr_dataset(5))])
    done = verify(house.reader, house.store)
    assert (kinds(done), done.is_clean) == ([FindingKind.SEGMENT_UNREFERRED], True)


def test_damage_in_a_segment_that_nothing_refers_to_is_found(house: House) -> None:
    (placed,) = house.put([member(mr_dataset(5))])
    _flip(house, placed.location, placed.location.size_bytes - 1)
    done = verify(house.reader, house.store)
    assert kinds(done) == [FindingKind.SEGMENT_UNREFERRED, FindingKind.ORIGINAL_DIFFERS]
    assert not done.is_clean


def test_damage_in_a_claim_check_that_waits_is_found(house: House) -> None:
    claim = local_claim_checks(SystemDisk(), house.folder / "archive", SystemClock())("default")
    claim.write(b"x" * 4096)
    streamed = claim.finish("default/claim", {"ce_id": "c"})
    done = verify(house.reader, house.store)
    assert (kinds(done), done.is_clean) == ([FindingKind.SEGMENT_UNREFERRED], True)
    _flip(house, MemberLocation(segment=claim.key, offset=streamed.offset, size_bytes=streamed.size_bytes), 9)
    done = verify(house.reader, house.store)
    assert kinds(done) == [FindingKind.SEGMENT_UNREFERRED, FindingKind.MEMBER_DAMAGED]


def test_a_catalog_that_knows_nothing_of_the_archive_is_no_sound_one(house: House, tmp_path: Path) -> None:
    empty = open_catalog(tmp_path / "other" / "catalog.sqlite")
    empty.close()
    with pytest.raises(Misconfigured, match="run sansfilm archive rebuild"):
        verify(open_reader(tmp_path / "other" / "catalog.sqlite"), house.store)


def test_a_damaged_journal_entry(house: House) -> None:
    (key,) = house.store.keys("journal/")
    path = _path(house, key)
    path.write_bytes(path.read_bytes().replace(b'"kind"', b'"kine"'))
    done = verify(house.reader, house.store)
    assert (kinds(done), done.is_clean) == ([FindingKind.JOURNAL_DAMAGED], False)


def test_originals_are_exact(house: House) -> None:
    for number, seed in ((1, 0), (2, 0), (1, 9)):
        wire = dataset_bytes(mr_dataset(number, seed=seed))
        uid = str(mr_dataset(number).SOPInstanceUID)
        versions = [one for _, one in house.reader.versions(SCOPE, uid)]
        places = {one.wire_sha256: known.location for known, one in house.reader.versions(SCOPE, uid)}
        exact = [original(house.store, one, places[one.wire_sha256]) for one in versions]
        assert wire in exact
        file = original_file(house.store, versions[0], places[versions[0].wire_sha256])
        meta, dataset = split(file)
        assert bytes(dataset) == exact[0]
        assert meta.transfer_syntax == versions[0].received_transfer_syntax


def test_a_damaged_original_is_never_given(house: House) -> None:
    ((known, record),) = house.reader.versions(SCOPE, str(mr_dataset(2).SOPInstanceUID))
    _flip(house, known.location, 700)
    with pytest.raises(OriginalDamaged):
        original(house.store, record, known.location)


def test_a_pixel_digest_that_differs(house: House) -> None:
    sound = member(mr_dataset(7))
    assert isinstance(sound.record, InstanceRecord)
    house.take(replace(sound, record=replace(sound.record, pixel_sha256="00" * 32)))
    assert kinds(verify(house.reader, house.store)) == [FindingKind.PIXELS_DIFFER]
