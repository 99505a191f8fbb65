"""The role on its real rooms: what becomes of bad messages, duplicates, claim checks, faults and stops."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from archive.catalog import SegmentCondemned
from archive.local_store import LocalSegmentStore
from archive.original import original
from archive.sql_catalog import SqlCatalog
from archive.sql_reader import open_reader
from runtime.errors import Retryable
from runtime.metrics import REGISTRY
from schemas.message import Message
from schemas.reasons import QuarantineReason
from tests.datasets import dataset_bytes, mr_dataset
from tests.waiting import until
from tests.workers.pool import Pool, message
from workers.claims import Claims

PIXELS = bytes(mr_dataset(1).PixelData)
MakePool = Callable[..., Pool]


def verdicts() -> list[float]:
    """How many messages came to New and to Same in this process."""
    return [REGISTRY.get_sample_value("sansfilm_verdicts_total", {"verdict": one}) or 0 for one in ("new", "same")]


def retries() -> float:
    return REGISTRY.get_sample_value("sansfilm_batch_retries_total") or 0


def test_it_starts_on_an_empty_folder(pool: Pool) -> None:
    """Nobody made its folders before."""
    pool.work(message(mr_dataset(1)))
    assert pool.counts() == (1, 1, 0)


def test_a_bad_message_fails_alone(pool: Pool) -> None:
    bad = message(b"no DICOM file at all", sop_instance_uid="1.2.3")
    pool.work(message(mr_dataset(1)), bad, message(mr_dataset(2)))
    assert pool.counts() == (2, 2, 1)
    (entry,) = pool.quarantined()
    assert (entry["id"], entry["reason"]) == (bad.attributes.id, QuarantineReason.PARSE_FAILED)
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        assert store.read(entry["location"]) == bad.value


def test_each_record_says_where_its_message_lay_in_the_log(pool: Pool) -> None:
    pool.work(message(mr_dataset(1)), message(b"no DICOM file at all", sop_instance_uid="1.2.3"))
    with closing(open_reader(pool.settings.catalog_path)) as reader:
        positions = [placed.record.log_position for placed, _ in reader.placed()]
    streams = {position.partition("@")[0] for position in positions}
    assert len(set(positions)) == 2
    assert len(streams) == 1
    assert streams.pop().startswith("routine/")


def test_duplicates_in_a_batch_are_put_once(pool: Pool) -> None:
    before = verdicts()
    pool.work(*(message(mr_dataset(1)) for _ in range(4)), message(mr_dataset(2)))
    assert pool.counts() == (2, 2, 0)
    assert [now - then for now, then in zip(verdicts(), before, strict=True)] == [2, 3]
    (segment,) = pool.segments()
    with tarfile.open(pool.path(segment)) as members:
        assert len([name for name in members.getnames() if name.endswith(".dcm")]) == 2


def test_what_was_put_is_not_put_again_when_the_commit_fails(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    commit = SqlCatalog.commit_batch

    def busy_twice(self: SqlCatalog, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise Retryable("the database is busy")
        return commit(self, *args, **options)

    monkeypatch.setattr(SqlCatalog, "commit_batch", busy_twice)
    pool.work(message(mr_dataset(1)), message(mr_dataset(2)))
    assert len(calls) == 3
    assert pool.counts() == (2, 2, 0)
    assert len(pool.segments()) == 1


def test_what_one_tenant_has_put_is_not_put_again_for_anothers_fault(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    put = LocalSegmentStore.put

    def away_once(self: LocalSegmentStore, tenant: str, members: Any) -> Any:
        calls.append(tenant)
        if calls == ["default", "north"]:
            raise Retryable("the store is away")
        return put(self, tenant, members)

    monkeypatch.setattr(LocalSegmentStore, "put", away_once)
    pool.work(message(mr_dataset(1)), message(mr_dataset(1), tenant="north"))
    assert calls == ["default", "north", "north"]
    assert (len(pool.segments()), pool.counts()) == (1, (1, 1, 0))


def test_a_stop_while_a_fault_lasts_leaves_the_batch_in_the_log(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise Retryable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(LocalSegmentStore, "put", away)
        before = retries()
        pool.publish(message(mr_dataset(1)), message(mr_dataset(2)))
        with pool.working():
            until(lambda: retries() > before + 1)
    assert (pool.left(), pool.counts()) == (2, (0, 0, 0))
    pool.work()
    assert (pool.left(), pool.counts()) == (0, (2, 2, 0))


# ---- claim checks ----


def test_a_claim_that_is_kept_is_adopted_where_it_lies(make_pool: MakePool) -> None:
    pool = make_pool(transcode="keep")
    claim = pool.claim(mr_dataset(1))
    pool.work(claim)
    _assert_held_in(pool, claim)


def test_a_claim_that_is_rewritten_is_removed(pool: Pool) -> None:
    claim = pool.claim(mr_dataset(1))
    pool.work(claim)
    until(lambda: claim.attributes.data_ref not in pool.segments())
    ((version, record),) = pool.versions(mr_dataset(1))
    assert version.location.segment in pool.segments()
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        assert original(store, record, version.location) == dataset_bytes(mr_dataset(1))


def test_a_claim_that_is_delivered_again_is_never_removed(make_pool: MakePool) -> None:
    """As after a crash between the commit and the positions: what is held already lies in this very claim."""
    pool = make_pool(transcode="keep")
    claim = pool.claim(mr_dataset(1))
    pool.work(claim)
    pool.work(claim, claim)
    _assert_held_in(pool, claim)


def test_another_claim_of_the_same_content_is_removed(make_pool: MakePool) -> None:
    pool = make_pool(transcode="keep")
    first, second, third = (pool.claim(mr_dataset(1)) for _ in range(3))
    pool.work(first)
    pool.work(second, third)
    assert {second.attributes.data_ref, third.attributes.data_ref} & pool.segments() == set()
    _assert_held_in(pool, first)


def test_a_claim_of_what_is_held_in_another_encoding_is_removed(make_pool: MakePool) -> None:
    """The hint does not know it; the commit does."""
    pool = make_pool(transcode="keep")
    first = pool.claim(mr_dataset(1))
    pool.work(first)
    pool.work(pool.claim(mr_dataset(1), ImplicitVRLittleEndian), pool.claim(mr_dataset(1), ImplicitVRLittleEndian))
    batches = {key for key in pool.segments() if key != first.attributes.data_ref}
    assert [key for key in batches if pool.path(key).read_bytes().count(PIXELS)] == []
    _assert_held_in(pool, first)


def test_a_claim_that_two_batches_name_stays_as_long_as_it_is_committed(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch was judged before the first was committed, so no hint told it."""
    pool = make_pool(transcode="keep", batch_max_messages=1)
    claim = pool.claim(mr_dataset(1))
    monkeypatch.setattr(SqlCatalog, "known", lambda *_: {})
    pool.work(claim, claim)
    monkeypatch.undo()
    _assert_held_in(pool, claim)


def test_two_claims_of_the_same_content_in_one_batch(make_pool: MakePool) -> None:
    pool = make_pool(transcode="keep")
    first, second = pool.claim(mr_dataset(1)), pool.claim(mr_dataset(1))
    pool.work(first, second)
    assert second.attributes.data_ref not in pool.segments()
    _assert_held_in(pool, first)


def test_a_claim_that_cannot_be_filed_is_quarantined_where_it_lies(pool: Pool) -> None:
    nameless = mr_dataset(1)
    del nameless.StudyInstanceUID
    claim = pool.claim(nameless)
    pool.work(claim)
    (entry,) = pool.quarantined()
    assert (entry["reason"], entry["location"].segment) == (QuarantineReason.MISSING_UID, claim.attributes.data_ref)


@pytest.mark.parametrize("transcode", ["keep", "htj2k"])
def test_a_claim_that_was_damaged_since_its_receipt_is_never_committed(make_pool: MakePool, transcode: str) -> None:
    pool = make_pool(transcode=transcode)
    claim = pool.claim(mr_dataset(1))
    with pool.path(claim.attributes.data_ref).open("r+b") as segment:
        segment.seek(claim.attributes.data_offset + claim.attributes.size_bytes - 100)
        segment.write(b"\xff")
    pool.work(claim)
    assert pool.counts() == (0, 0, 1)
    (entry,) = pool.quarantined()
    assert (entry["reason"], "damaged" in entry["detail"]) == (QuarantineReason.PARSE_FAILED, True)


def test_a_large_claim_is_read_without_holding_it_in_memory(pool: Pool) -> None:
    claim = pool.claim(mr_dataset(1))
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        digests = set()
        for memory_max_bytes, file_of in ((1 << 30, None), (1, None), (1, pool.path)):
            claims = Claims(
                store=store,
                memory_max_bytes=memory_max_bytes,
                spool_dir=pool.settings.archive_dir,
                file_of=file_of,
            )
            digests.add(hashlib.sha256(claims.file(claim)).hexdigest())
    assert digests == {claim.attributes.sha256}


def _assert_held_in(pool: Pool, claim: Message) -> None:
    ((version, record),) = pool.versions(mr_dataset(1))
    assert version.location.segment == claim.attributes.data_ref
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        assert original(store, record, version.location) == dataset_bytes(mr_dataset(1))


def test_a_batch_that_came_too_late_for_the_collector_is_put_again(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another key; a condemned claim check is read while it is there and written into the new segment."""
    pool, commit = make_pool(transcode="keep"), SqlCatalog.commit_batch
    condemned: list[str] = []

    def too_late(catalog: SqlCatalog, placed: Any, **given: Any) -> Any:
        if not condemned:
            condemned.extend({*given["segments"], *(one.location.segment for one in placed)})
            raise SegmentCondemned(condemned)
        return commit(catalog, placed, **given)

    monkeypatch.setattr(SqlCatalog, "commit_batch", too_late)
    large = pool.claim(mr_dataset(2))
    pool.work(message(mr_dataset(1)), large, message(b"no DICOM"))
    assert pool.counts() == (2, 2, 1)
    assert large.attributes.data_ref in condemned
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        for number in (1, 2):
            ((known, record),) = pool.versions(mr_dataset(number))
            assert known.location.segment not in condemned
            assert original(store, record, known.location)
        (entry,) = pool.quarantined()
        assert entry["location"].segment not in condemned
