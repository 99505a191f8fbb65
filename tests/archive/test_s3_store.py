"""Segments in an object store: the contract, and what is particular to it, on a real server."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from archive.s3_access import S3Access
from archive.s3_store import S3SegmentStore, open_s3_store
from archive.segment_store import SegmentStore
from region.seaweedfs import EDGE, WORKER, Identity, SeaweedS3
from runtime.errors import Misconfigured, Retryable
from runtime.settings import CommonSettings
from schemas.record import MemberLocation
from segments.tar import SegmentDamaged
from tests.archive.contract_store import StoreContract
from tests.archive.samples import TENANT, StepClock, unfileable
from tests.region.s3 import SITE, access_to


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def access(seaweed: SeaweedS3) -> S3Access:
    return access_to(seaweed.port)


@pytest.fixture
def store(access: S3Access, clock: StepClock) -> S3SegmentStore:
    return S3SegmentStore(access, clock=clock)


@pytest.fixture
def reopened(access: S3Access, clock: StepClock) -> Callable[[], SegmentStore]:
    return lambda: S3SegmentStore(access, clock=clock)


class TestS3SegmentStore(StoreContract):
    """The contract on SeaweedFS."""


def settings_for(server: SeaweedS3, **given: object) -> CommonSettings:
    known: dict[str, object] = {
        "store_url": "s3://archive/settings",
        "s3_endpoint": server.endpoint,
        "s3_access_key_id": WORKER.access_key_id,
        "s3_secret_access_key": WORKER.secret_access_key,
    }
    return CommonSettings(**{**known, **given})  # type: ignore[arg-type]


def test_the_store_that_the_settings_name(seaweed: SeaweedS3) -> None:
    store = open_s3_store(settings_for(seaweed))
    (location,) = store.put(TENANT, [unfileable("q1")]).locations
    assert open_s3_store(settings_for(seaweed)).read(location) == b"no data set"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"s3_secret_access_key": "wrong-secret"}, "refuses the secret key"),
        ({"s3_access_key_id": "nobody"}, "does not know the access key"),
        ({"s3_access_key_id": EDGE.access_key_id, "s3_secret_access_key": EDGE.secret_access_key}, "may not read"),
        ({"store_url": "s3://nowhere/x"}, "no such bucket"),
        ({"store_url": "https://archive"}, "must be s3://bucket/prefix"),
        ({"s3_secret_access_key": ""}, "needs SANSFILM_S3_ACCESS_KEY_ID"),
        ({"s3_endpoint": "ftp://127.0.0.1"}, "must be https://host:port"),
        ({"s3_endpoint": "http://store.example"}, "must be https://"),
    ],
)
def test_a_wrong_setting_is_told_in_a_sentence(seaweed: SeaweedS3, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence) as told:
        open_s3_store(settings_for(seaweed, **given))
    assert "wrong-secret" not in str(told.value)
    assert "\n" not in str(told.value)
    assert told.value.__cause__ is None


def test_a_store_that_is_away_is_no_wrong_setting(seaweed: SeaweedS3) -> None:
    with pytest.raises(Retryable, match="does not answer"):
        open_s3_store(settings_for(seaweed, s3_endpoint="http://127.0.0.1:9", s3_retries_max=0))


@pytest.mark.parametrize("identity", [Identity(access_key_id="nobody", secret_access_key="x"), None])
def test_without_the_right_credentials_nothing_is_read_or_written(
    store: S3SegmentStore, access: S3Access, seaweed: SeaweedS3, identity: Identity | None
) -> None:
    (location,) = store.put(TENANT, [unfileable("q1")]).locations
    wrong = identity or Identity(access_key_id=WORKER.access_key_id, secret_access_key="wrong")
    stranger = S3SegmentStore(access_to(seaweed.port, access.prefix, wrong), clock=StepClock())
    for attempt in (
        lambda: stranger.read(location),
        lambda: list(stranger.keys()),
        lambda: stranger.put(TENANT, [unfileable("q2")]),
        lambda: stranger.delete(location.segment),
    ):
        with pytest.raises(Retryable, match="403") as told:
            attempt()  # type: ignore[no-untyped-call]
        assert "wrong" not in str(told.value)
    assert list(store.keys()) == [location.segment]


def test_secrets_are_in_no_representation(access: S3Access) -> None:
    assert access.secret_access_key not in repr(access)
    assert access.secret_access_key not in repr(access.reading())


def test_the_root_explains_itself(store: S3SegmentStore, access: S3Access) -> None:
    assert list(store.keys()) == []
    assert obstore.list_with_delimiter(access.reading())["objects"] == [], "nothing is written by reading"
    store.put(TENANT, [unfileable("q1")])
    found = obstore.list_with_delimiter(access.reading())
    assert sorted(one["path"] for one in found["objects"]) == ["README.txt", "restore.py"]
    assert b"restore.py" in obstore.get(access.reading(), "README.txt").bytes()


def test_a_stale_readme_is_renewed_and_a_fresh_one_left(access: S3Access, clock: StepClock) -> None:
    obstore.put(access.writing(), "README.txt", b"old")
    S3SegmentStore(access, clock=clock).put_journal({"kind": "x"})
    renewed = obstore.head(access.reading(), "README.txt")
    assert renewed["size"] > 3
    S3SegmentStore(access, clock=clock).put_journal({"kind": "x"})
    assert obstore.head(access.reading(), "README.txt")["last_modified"] == renewed["last_modified"]


def test_foreign_objects_are_not_listed(store: S3SegmentStore, access: S3Access) -> None:
    put = store.put(TENANT, [unfileable("q1")])
    for name in (f"segments/{TENANT}/2026/03/01/notes.txt", f"segments/{TENANT}/2026/03/01/x.tar.part", "segments/y"):
        obstore.put(access.writing(), name, b"foreign")
    assert list(store.keys()) == [put.key] == list(store.newest_first())


def test_an_object_cut_short_is_damaged(store: S3SegmentStore, access: S3Access) -> None:
    (location,) = store.put(TENANT, [unfileable("q1", bytes(8192))]).locations
    name = f"segments/{location.segment}"
    obstore.put(access.writing(), name, obstore.get(access.reading(), name).bytes().to_bytes()[: location.offset + 100])
    for attempt in (lambda: store.read(location), lambda: b"".join(store.stream(location))):
        with pytest.raises(SegmentDamaged, match="shorter"):
            attempt()
    obstore.put(access.writing(), name, b"12345")
    with pytest.raises(SegmentDamaged, match="shorter"):
        store.read(location)
    with pytest.raises(SegmentDamaged):
        store.index(location.segment)


def test_a_key_that_holds_another_content_is_left_alone(store: S3SegmentStore, access: S3Access) -> None:
    """Two processes of one clock: the second one's PUT finds the first one's object."""
    (first,) = S3SegmentStore(access, clock=StepClock()).put(TENANT, [unfileable("q1", b"first")]).locations
    batch = [unfileable("q2", b"second")]
    with pytest.raises(Retryable, match="key is taken"):
        store.put(TENANT, batch)
    (second,) = store.put(TENANT, batch).locations
    assert (store.read(first), store.read(second)) == (b"first", b"second")
    assert first.segment != second.segment


def test_the_same_put_again_under_its_key_is_a_success(access: S3Access) -> None:
    """As after a lost answer."""
    first = S3SegmentStore(access, clock=StepClock()).put(TENANT, [unfileable("q1", b"x" * 100_000)])
    again = S3SegmentStore(access, clock=StepClock()).put(TENANT, [unfileable("q1", b"x" * 100_000)])
    assert again == first


def test_a_put_copies_no_member(store: S3SegmentStore) -> None:
    members = [unfileable(f"q{number}", bytes([number]) * 2**20) for number in range(32)]
    store.put(TENANT, [unfileable("warm")])
    tracemalloc.start()
    before = _resident_bytes()
    peak = _peak_while(lambda: store.put(TENANT, members))
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert traced < 2**22
    assert peak - before < 16 * 2**20


def test_a_read_of_any_size(store: S3SegmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.s3_store.READ_BYTES", 100_000)
    content = bytes(range(256)) * 1500
    (location,) = store.put(TENANT, [unfileable("q1", content)]).locations
    assert store.read(location) == content
    assert store.read(location, 1, 100_001) == content[1:100_002]


def test_the_edge_puts_and_reads_its_tenants_and_deletes_and_lists_nothing(seaweed: SeaweedS3) -> None:
    edge = access_to(seaweed.port, SITE, EDGE)
    edge.check(may_only_put=True)
    theirs, other = f"segments/{TENANT}/2026/01/01/e.tar", "segments/other/2026/01/01/e.tar"
    obstore.put(edge.writing(), theirs, b"x")
    assert obstore.get(edge.reading(), theirs).bytes() == b"x"
    for attempt in (
        lambda: obstore.delete(edge.reading(), theirs),
        lambda: obstore.put(edge.writing(), other, b"x"),
        lambda: obstore.put(edge.writing(), "README.txt", b"x"),
        lambda: obstore.list_with_delimiter(edge.reading(), "segments"),
        lambda: obstore.get(edge.reading(), other),
    ):
        with pytest.raises(Exception, match="403 Forbidden"):
            attempt()
    obstore.put(edge.writing(), theirs, b"overwritten")  # what the server cannot be told to refuse
    obstore.delete(access_to(seaweed.port, SITE).reading(), theirs)


def test_a_location_of_another_tool_is_no_name(store: S3SegmentStore, access: S3Access, tmp_path: Path) -> None:
    obstore.put(access.writing(), "secret.tar", b"secret")
    for key in ("../secret.tar", "default/../../secret.tar", "%2e%2e/secret.tar"):
        with pytest.raises(FileNotFoundError):
            store.read(MemberLocation(segment=key, offset=0, size_bytes=6))
        with pytest.raises(FileNotFoundError):
            store.delete(key)


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def _peak_while(work: Callable[[], object]) -> int:
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak
