"""Segments that were lost: sending an instance again brings its bytes back and is never in anybody's way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from archive.compare import comparer
from archive.local_store import LocalSegmentStore
from archive.original import original
from archive.rebuild import rebuild
from tests.archive.house import snapshot
from tests.datasets import dataset_bytes, mr_dataset, part10
from tests.workers.pool import Pool, message

MakePool = Callable[..., Pool]


def lose(pool: Pool, content: Dataset) -> str:
    """Remove the segment in which an instance is; gives its key."""
    ((version, _),) = pool.versions(content)
    pool.path(version.location.segment).unlink()
    return version.location.segment


def no_decoding(*_: object) -> bytes:
    raise AssertionError("nothing is compared")


def restored(pool: Pool, content: Dataset) -> list[bytes]:
    """The original of each version."""
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        return [original(store, record, version.location) for version, record in pool.versions(content)]


@pytest.mark.parametrize("transcode", ["keep", "htj2k"])
@pytest.mark.parametrize("is_claim", [False, True])
def test_what_was_lost_is_there_again_once_it_is_sent_again(
    make_pool: MakePool, transcode: str, is_claim: bool
) -> None:
    pool = make_pool(transcode=transcode)
    pool.work(message(mr_dataset(1)), message(mr_dataset(2)))
    lost = lose(pool, mr_dataset(1))
    before = pool.reader.counters("default")
    again = [pool.claim(one) if is_claim else message(one) for one in (mr_dataset(1), mr_dataset(2))]
    pool.publish(*again)
    assert pool.life() is None
    assert pool.counts() == (2, 2, 0)
    for number in (1, 2):
        ((version, _),) = pool.versions(mr_dataset(number))
        assert version.location.segment != lost
        assert restored(pool, mr_dataset(number)) == [dataset_bytes(mr_dataset(number))]
    assert pool.reader.counters("default") == before
    healed, held = snapshot(pool.reader), pool.segments()
    pool.work(*again)  # delivered once more: now it is held
    assert (snapshot(pool.reader), pool.segments()) == (healed, held)
    with closing(LocalSegmentStore(pool.settings.archive_dir)) as store:
        rebuild(store, pool.settings.catalog_path, equal=comparer(store, no_decoding))
    assert snapshot(pool.reader) == healed


def test_what_is_not_lost_is_not_put_again(pool: Pool) -> None:
    pool.work(message(mr_dataset(1)))
    held = pool.segments()
    pool.work(message(mr_dataset(1)))
    assert pool.segments() == held


def test_what_cannot_be_compared_with_a_lost_version_is_a_further_one(pool: Pool) -> None:
    pool.work(message(mr_dataset(1)))
    lose(pool, mr_dataset(1))
    encoded_anew = part10(mr_dataset(1), ImplicitVRLittleEndian)
    pool.publish(message(encoded_anew, sop_instance_uid=str(mr_dataset(1).SOPInstanceUID)), message(mr_dataset(2)))
    assert pool.life() is None
    assert pool.counts() == (2, 3, 0)
