"""Claim checks and finished files in an object store: whole or not there, whatever happens on the way."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archive.layout import instance_key
from archive.s3_access import S3Access
from archive.s3_claim_check import PART_BYTES, S3ClaimCheck, S3Uploads
from archive.s3_multipart import PARTS_MAX, MultipartUpload
from archive.s3_requests import signed_headers
from archive.s3_store import S3SegmentStore
from archive.segment_store import KeyTaken
from ingest.large import LargeInstance, LocalClaimCheck
from region.seaweedfs import EDGE, SeaweedS3
from runtime.errors import OutOfSpace, Rejected, Retryable
from schemas.reasons import RejectReason
from schemas.record import MemberLocation
from segments.disk import SystemDisk
from segments.streamed import HEADER_BYTES
from segments.trailer import TRAILER_BYTES
from tests.archive.samples import TENANT, StepClock, attributes
from tests.region.proxy import Proxy
from tests.region.s3 import SITE, access_to
from tests.waiting import until

MIB = 2**20
OBJECT_MAX_BYTES = 64 * MIB
#: Of a claim check without its body: room for the header, an empty index, the trailer.
AROUND_BYTES = HEADER_BYTES + 3 * 512 + TRAILER_BYTES
SIZES = [
    0,
    1,
    MIB + 7,
    PART_BYTES - AROUND_BYTES,
    PART_BYTES - AROUND_BYTES + 512,
    PART_BYTES - HEADER_BYTES,
    2 * PART_BYTES - AROUND_BYTES,
    2 * PART_BYTES + 3 * MIB + 1,
]


@pytest.fixture
def proxy(seaweed: SeaweedS3) -> Iterator[Proxy]:
    with Proxy(seaweed.port) as opened:
        yield opened


@pytest.fixture
def access(proxy: Proxy) -> S3Access:
    return access_to(proxy.port)


@pytest.fixture
def uploads(access: S3Access) -> S3Uploads:
    return S3Uploads(access, object_max_bytes=OBJECT_MAX_BYTES, clock=StepClock())


@pytest.fixture
def store(access: S3Access) -> S3SegmentStore:
    return S3SegmentStore(access, clock=StepClock())


def body_of(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def write(check: S3ClaimCheck | LocalClaimCheck, body: bytes, each: int = 777_777) -> None:
    """In chunks of one buffer that is used again."""
    buffer = bytearray(each)
    for at in range(0, len(body), each):
        piece = body[at : at + each]
        buffer[: len(piece)] = piece
        check.write(memoryview(buffer)[: len(piece)])


def started(uploads: S3Uploads, size_bytes: int = 2 * PART_BYTES + MIB) -> tuple[S3ClaimCheck, bytes]:
    check, body = uploads.open_claim_check(TENANT), body_of(size_bytes)
    write(check, body)
    return check, body


def read_back(store: S3SegmentStore, check: S3ClaimCheck, size_bytes: int) -> bytes:
    return store.read(MemberLocation(segment=check.key, offset=HEADER_BYTES, size_bytes=size_bytes))


@pytest.mark.parametrize("size_bytes", SIZES)
def test_the_bytes_are_those_of_a_local_claim_check(
    uploads: S3Uploads, store: S3SegmentStore, tmp_path: Path, size_bytes: int
) -> None:
    body = body_of(size_bytes)
    check, local = uploads.open_claim_check(TENANT), LocalClaimCheck(SystemDisk(), tmp_path, TENANT, StepClock())
    assert check.key == local.key
    for one in (check, local):
        write(one, body)
        assert list(store.keys()) == []
    given = {"ce_id": "m1", "ce_time": "2026-03-01T08:15:00Z"}
    assert check.finish("a/b.dcm", given) == local.finish("a/b.dcm", given)
    (key,) = store.keys()
    whole = (tmp_path / "segments" / key).read_bytes()
    assert store.read(MemberLocation(segment=key, offset=0, size_bytes=store.size_bytes(key))) == whole
    assert store.size_bytes(key) == len(whole)
    assert store.index(key) == []
    (member,) = store.members(key).members
    assert member.provenance["sha256"] == check.sha256
    check.abort()  # does nothing any longer
    assert list(store.keys()) == [key]


def test_what_is_aborted_leaves_nothing(uploads: S3Uploads, store: S3SegmentStore, seaweed: SeaweedS3) -> None:
    before = incomplete_uploads(seaweed)
    check, _ = started(uploads)
    until(lambda: incomplete_uploads(seaweed) == before + 1, what="the upload")
    check.abort()
    check.abort()
    assert incomplete_uploads(seaweed) == before
    small, _ = started(uploads, 10)
    small.abort()
    assert list(store.keys()) == []


def test_what_is_withdrawn_is_gone(uploads: S3Uploads, store: S3SegmentStore) -> None:
    check, _ = started(uploads)
    check.finish("a/b", {})
    check.withdraw()
    check.withdraw()
    assert list(store.keys()) == []


def test_a_part_dropped_in_the_middle_is_sent_again(uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy) -> None:
    check = uploads.open_claim_check(TENANT)
    body = body_of(3 * PART_BYTES)
    proxy.drop_request_after(PART_BYTES // 2)
    write(check, body)
    proxy.answer(500, times=1)
    check.finish("a/b", {})
    assert proxy.settled.is_set()
    assert read_back(store, check, len(body)) == body


def test_a_part_that_changes_on_the_way_is_refused(uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy) -> None:
    check = uploads.open_claim_check(TENANT)
    proxy.flip_request_bit_after(PART_BYTES // 2)
    with pytest.raises(Retryable, match="BadDigest"):
        write(check, body_of(4 * PART_BYTES))
    check.abort()
    assert list(store.keys()) == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [(507, RejectReason.DISK_LOW), (403, RejectReason.LOG_UNAVAILABLE), (400, RejectReason.LOG_UNAVAILABLE)],
)
def test_the_sender_is_told(
    uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy, status: int, reason: RejectReason
) -> None:
    large = LargeInstance(uploads.open_claim_check(TENANT))
    large.write(body_of(2 * PART_BYTES - MIB))
    proxy.answer(status, b"<Error><Code>InvalidRequest</Code></Error>")
    with pytest.raises(Rejected) as told:
        large.finish(attributes("m1"))
    assert told.value.reason is reason
    assert list(store.keys()) == []


def test_a_large_instance_is_named_by_its_message(uploads: S3Uploads, store: S3SegmentStore) -> None:
    large, body = LargeInstance(uploads.open_claim_check(TENANT)), body_of(PART_BYTES + MIB)
    large.write(body)
    named = large.finish(attributes("m1", study_uid="1.2", sop_instance_uid="1.2.3"))
    place = MemberLocation(segment=named.data_ref, offset=named.data_offset, size_bytes=named.size_bytes)  # type: ignore[arg-type]
    assert b"".join(store.stream(place)) == body
    (member,) = store.members(str(named.data_ref)).members
    assert member.name.startswith(f"{TENANT}/1.2/1.2.3.")
    large.withdraw()


def test_a_completion_whose_answer_is_lost_is_found(uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy) -> None:
    check, body = started(uploads)
    complete = check._upload.complete

    def lose_the_answer() -> None:
        proxy.drop_answer_after(0)
        complete()

    check._upload.complete = lose_the_answer  # type: ignore[method-assign]
    check.finish("a/b", {})
    assert proxy.settled.is_set()
    assert read_back(store, check, len(body)) == body


def test_an_upload_that_was_never_completed_is_no_success(
    uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy
) -> None:
    check, _ = started(uploads)
    complete = check._upload.complete

    def unknown_upload() -> None:
        proxy.answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")
        complete()

    check._upload.complete = unknown_upload  # type: ignore[method-assign]
    with pytest.raises(Retryable, match="did not complete"):
        check.finish("a/b", {})
    assert list(store.keys()) == []


def test_a_success_that_holds_an_error_is_none(uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy) -> None:
    """S3 begins to answer a completion before it knows how it ends."""
    check, _ = started(uploads)
    complete = check._upload.complete

    def failing() -> None:
        proxy.answer(200, b"<Error><Code>InternalError</Code></Error>")
        complete()

    check._upload.complete = failing  # type: ignore[method-assign]
    with pytest.raises(Retryable, match="InternalError"):
        check.finish("a/b", {})
    assert list(store.keys()) == []


def test_an_abort_while_the_store_is_away_is_quiet(seaweed: SeaweedS3, access: S3Access, proxy: Proxy) -> None:
    uploads = S3Uploads(replace(access, read_timeout_s=0.3, connect_timeout_s=0.3), object_max_bytes=OBJECT_MAX_BYTES)
    check, _ = started(uploads)
    proxy.hold()
    check.abort()
    proxy.release()


def test_memory_is_three_parts(uploads: S3Uploads) -> None:
    check, _ = started(uploads, 3 * PART_BYTES)  # what libraries need once is there
    check.abort()
    before, peak, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    check, block = uploads.open_claim_check(TENANT), bytes(MIB)
    for _ in range(12 * PART_BYTES // MIB):
        check.write(block)
    check.finish("a/b", {})
    done.set()
    watcher.join()
    assert peak - before < 4 * PART_BYTES + 8 * MIB


def test_parts_grow_where_there_would_be_too_many(access: S3Access) -> None:
    assert S3Uploads(access, object_max_bytes=4 * 2**30).part_bytes == PART_BYTES
    large = 500 * 2**30
    assert S3Uploads(access, object_max_bytes=large).part_bytes * PARTS_MAX > large


# ---- finished files ----


@pytest.fixture
def spooled(tmp_path: Path) -> Path:
    path = tmp_path / "spooled.tar"
    path.write_bytes(body_of(2 * PART_BYTES + MIB))
    return path


KEY = instance_key(TENANT, "019ca877-0ba1-7000-8000-0000000000aa")


def content(store: S3SegmentStore, key: str = KEY) -> bytes:
    return store.read(MemberLocation(segment=key, offset=0, size_bytes=store.size_bytes(key)))


@pytest.mark.parametrize("size_bytes", [1, MIB, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_a_file_is_put_as_it_is_and_once(
    uploads: S3Uploads, store: S3SegmentStore, tmp_path: Path, size_bytes: int
) -> None:
    path = tmp_path / "file.tar"
    path.write_bytes(body_of(size_bytes))
    uploads.put_file(KEY, path)
    assert content(store) == path.read_bytes()
    uploads.put_file(KEY, path)
    changed = bytearray(path.read_bytes())
    changed[size_bytes // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(KeyTaken):
        uploads.put_file(KEY, path)
    path.write_bytes(changed + b"x")
    with pytest.raises(KeyTaken):
        uploads.put_file(KEY, path)
    assert content(store) == body_of(size_bytes)


def test_a_file_whose_upload_fails_is_put_again(
    uploads: S3Uploads, store: S3SegmentStore, proxy: Proxy, spooled: Path, seaweed: SeaweedS3
) -> None:
    before = incomplete_uploads(seaweed)
    for status in (507, 403):
        proxy.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")  # asked whether it is there
        proxy.answer(status)
        with pytest.raises(OutOfSpace if status == 507 else Retryable):
            uploads.put_file(KEY, spooled)
    proxy.flip_request_bit_after(PART_BYTES // 2)
    with pytest.raises(Retryable, match="BadDigest"):
        uploads.put_file(KEY, spooled)
    assert list(store.keys()) == []
    assert incomplete_uploads(seaweed) == before
    uploads.put_file(KEY, spooled)
    assert content(store) == spooled.read_bytes()


def test_a_file_whose_completion_is_in_doubt_is_compared(
    uploads: S3Uploads,
    store: S3SegmentStore,
    proxy: Proxy,
    spooled: Path,
    seaweed: SeaweedS3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = incomplete_uploads(seaweed)
    complete = MultipartUpload.complete

    def unknown_upload(self: MultipartUpload) -> None:
        proxy.answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")
        complete(self)

    def lose_the_answer(self: MultipartUpload) -> None:
        proxy.drop_answer_after(0)
        complete(self)

    monkeypatch.setattr(MultipartUpload, "complete", unknown_upload)
    with pytest.raises(Retryable, match="is gone"):
        uploads.put_file(KEY, spooled)
    assert (list(store.keys()), incomplete_uploads(seaweed)) == ([], before + 1)  # nobody aborts what may be completed
    monkeypatch.setattr(MultipartUpload, "complete", lose_the_answer)
    uploads.put_file(KEY, spooled)
    assert proxy.settled.is_set()
    assert content(store) == spooled.read_bytes()


def test_there_is_no_such_file_or_key(uploads: S3Uploads, tmp_path: Path, spooled: Path) -> None:
    with pytest.raises(FileNotFoundError):
        uploads.put_file(KEY, tmp_path / "none.tar")
    with pytest.raises(FileNotFoundError):
        uploads.put_file("../x.tar", spooled)


def test_an_edge_does_all_this_with_its_own_credentials(seaweed: SeaweedS3, spooled: Path) -> None:
    edge = S3Uploads(access_to(seaweed.port, SITE, EDGE), object_max_bytes=OBJECT_MAX_BYTES)
    store = S3SegmentStore(access_to(seaweed.port, SITE))
    large, body = started(edge)
    large.finish("a/b", {})
    small, little = started(edge, MIB)
    small.finish("a/b", {})
    assert read_back(store, large, len(body)) == body
    assert read_back(store, small, len(little)) == little
    for _ in range(2):
        edge.put_file(KEY, spooled)
    assert content(store) == spooled.read_bytes()
    aborted, _ = started(edge)
    aborted.abort()
    large.withdraw()  # it may not, and says so in its log
    assert sorted(store.keys(f"{TENANT}/")) == sorted([large.key, small.key, KEY])
    with pytest.raises(Retryable, match="403"):
        other = edge.open_claim_check("other")
        other.write(b"x")
        other.finish("a/b", {})
    for key in (large.key, small.key, KEY):
        store.delete(key)


def test_signatures_are_those_of_the_published_example(access: S3Access) -> None:
    """Amazon S3, "Authenticating Requests: Using the Authorization Header", example GET Object."""
    example = replace(
        access, access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    )
    given = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    signed = signed_headers(example, "GET", "/test.txt", "", given, datetime(2013, 5, 24, tzinfo=UTC))
    assert signed["authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def incomplete_uploads(server: SeaweedS3) -> int:
    """Uploads begun and neither completed nor aborted, as the server's own folder has them."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[1], timeout=10)
    connection.request("GET", "/buckets/archive/.uploads/?limit=1000", headers={"Accept": "application/json"})
    text = connection.getresponse().read().decode()
    connection.close()
    return text.count('"FullPath"')


def resident_bytes() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
