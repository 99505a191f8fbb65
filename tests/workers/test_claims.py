"""Members of an object store as buffers: read, or copied and mapped, and what is said of those that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from archive.s3_store import S3SegmentStore
from region.seaweedfs import SeaweedS3
from tests.archive.samples import TENANT, member
from tests.datasets import mr_dataset
from tests.region.s3 import access_to
from workers.claims import Claims
from workers.healing import is_there


@pytest.fixture
def store(seaweed: SeaweedS3) -> Iterator[S3SegmentStore]:
    with closing(S3SegmentStore(access_to(seaweed.port))) as store:
        yield store


@pytest.mark.parametrize("memory_max_bytes", [1, 1 << 30], ids=["copied", "read"])
def test_members_of_an_object_store(tmp_path: Path, store: S3SegmentStore, memory_max_bytes: int) -> None:
    claims = Claims(store=store, memory_max_bytes=memory_max_bytes, spool_dir=tmp_path)
    prepared = member(mr_dataset(1))
    (location,) = store.put(TENANT, [prepared]).locations
    assert bytes(claims.member(location)) == b"".join(prepared.parts)
    assert is_there(store, location)
    assert list(tmp_path.iterdir()) == []
    missing = replace(location, segment=location.segment.replace(".tar", "0.tar"))
    assert not is_there(store, missing)
    assert not is_there(store, replace(location, size_bytes=1 << 40))
    with pytest.raises(FileNotFoundError):
        claims.member(missing)
