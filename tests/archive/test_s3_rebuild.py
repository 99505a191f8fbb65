"""With every database lost, the object store alone gives the same catalog; and verify finds what is wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from archive.findings import FindingKind
from archive.original import original
from archive.s3_access import S3Access
from archive.s3_claim_check import S3Uploads
from archive.s3_store import S3SegmentStore
from archive.segment_store import AdoptedMember
from archive.verify import verify
from region.seaweedfs import SeaweedS3
from runtime.errors import Fatal, Retryable
from schemas.decisions import DiscardQuarantined, UseVersion
from schemas.record import InstanceRecord, MemberLocation
from tests.archive.house import House, snapshot
from tests.archive.samples import SCOPE, TENANT, member, names, unfileable
from tests.datasets import dataset_bytes, mr_dataset
from tests.region.proxy import Proxy
from tests.region.s3 import access_to


@pytest.fixture
def access(seaweed: SeaweedS3) -> S3Access:
    return access_to(seaweed.port)


@pytest.fixture
def house(tmp_path: Path, access: S3Access) -> Iterator[House]:
    opened = House(tmp_path, lambda clock: S3SegmentStore(access, clock=clock))
    yield opened
    opened.close()


def live_through(house: House, access: S3Access) -> None:
    """A conflict, a decision about it, quarantine, a claim check, a batch put and not committed, a second process."""
    first, other = member(mr_dataset(1)), member(mr_dataset(1, seed=7), message_id="other")
    assert names(list(house.take(first, other, unfileable("q1")))) == ["New", "Conflict", "Quarantined"]
    assert isinstance(first.record, InstanceRecord)
    uid = first.record.instance.sop_instance_uid
    house.decide(UseVersion(tenant=TENANT, sop_instance_uid=uid, wire_sha256=other.record.wire_sha256), "d1")
    house.decide(DiscardQuarantined(tenant=TENANT, quarantine_id="q1"), "d2")
    claimed = member(mr_dataset(2), keep=True)
    check = S3Uploads(access, object_max_bytes=2**30, clock=house.clock).open_claim_check(TENANT)
    for part in claimed.parts:
        check.write(part)
    placed = check.finish(claimed.name, claimed.provenance)
    location = MemberLocation(segment=check.key, offset=placed.offset, size_bytes=placed.size_bytes)
    house.take(AdoptedMember(record=claimed.record, location=location), member(mr_dataset(3)))
    house.put([member(mr_dataset(4))])
    assert house.start() == 1
    mine, house.store = house.store, S3SegmentStore(access, clock=house.clock)
    house.take(member(mr_dataset(5)), member(mr_dataset(4), message_id="again"))
    house.store = mine
    house.take(member(mr_dataset(6)))


def test_the_store_alone_gives_the_same_catalog(house: House, access: S3Access) -> None:
    live_through(house, access)
    live = snapshot(house.reader)
    assert (len(live["instances"]), len(live["conflicts"]), len(live["quarantined"])) == (6, 1, 1)
    house.catalog.close()
    for path in house.catalog_path.parent.iterdir():
        path.unlink()
    report = house.rebuild()
    assert snapshot(house.reader) == live
    assert (report.records, report.journal_entries, report.findings) == (9, 3, [])


def test_all_is_as_it_was_received(house: House, access: S3Access) -> None:
    live_through(house, access)
    seen: list[tuple[int, int]] = []
    done = verify(house.reader, house.store, lambda at, total: seen.append((at, total)))
    assert (done.findings, done.is_clean) == ([], True)
    assert (done.versions, done.quarantined, done.segments) == (7, 1, 9)
    assert seen[-1][0] == seen[-1][1] > 0
    for number in range(2, 7):
        wire = dataset_bytes(mr_dataset(number))
        ((known, record),) = house.reader.versions(SCOPE, str(mr_dataset(number).SOPInstanceUID))
        assert original(house.store, record, known.location) == wire


def change(access: S3Access, key: str, old: bytes, new: bytes) -> None:
    """What nobody but a fault does to an object."""
    name = f"segments/{key}"
    content = obstore.get(access.reading(), name).bytes().to_bytes()
    assert old in content
    obstore.put(access.writing(), name, content.replace(old, new))


def test_what_is_damaged_is_found(house: House, access: S3Access) -> None:
    live_through(house, access)
    keys = list(house.store.keys(f"{TENANT}/"))
    (entry, *_) = house.store.keys("journal/")
    change(access, entry, b'"kind"', b'"kine"')
    change(access, keys[0], b"no data set", b"no data sat")
    house.store.delete(keys[-1])
    house.put([member(mr_dataset(9))])
    found = [finding.kind for finding in verify(house.reader, house.store).findings]
    assert sorted(found) == sorted(
        [
            FindingKind.ORIGINAL_DIFFERS,
            FindingKind.SEGMENT_MISSING,
            FindingKind.JOURNAL_DAMAGED,
            FindingKind.SEGMENT_UNREFERRED,
        ]
    )


def test_a_segment_without_a_readable_index_is_described_again(house: House, access: S3Access) -> None:
    house.take(member(mr_dataset(1)), unfileable("q1"))
    live = snapshot(house.reader)
    (key,) = house.store.keys(f"{TENANT}/")
    change(access, key, b'{"kind":"instance"', b'{"kind":"inst@nce"')
    report = house.rebuild()
    assert [finding.kind for finding in report.findings] == [FindingKind.INDEX_REPLACED]
    assert snapshot(house.reader) == live


def test_a_lost_segment_keeps_the_old_catalog(house: House) -> None:
    house.take(member(mr_dataset(1)))
    live = snapshot(house.reader)
    house.store.delete(next(house.store.keys()))
    with pytest.raises(Fatal, match="1 versions of the catalog are not in the archive"):
        house.rebuild()
    assert snapshot(house.reader) == live


def test_a_store_that_goes_away_meanwhile_keeps_the_old_catalog(
    house: House, access: S3Access, seaweed: SeaweedS3
) -> None:
    house.take(member(mr_dataset(1)), member(mr_dataset(2)))
    live, before = snapshot(house.reader), house.catalog_path.resolve()
    sound = house.store
    with Proxy(seaweed.port) as proxy:
        house.store = S3SegmentStore(access_to(proxy.port, access.prefix), clock=house.clock)
        for passes in (True, False):
            if passes:
                proxy.answer(500)
            else:
                proxy.drop_answer_after(2000)
            with pytest.raises(Retryable):
                house.rebuild()
    house.store = sound
    assert house.catalog_path.resolve() == before
    assert snapshot(house.reader) == live
