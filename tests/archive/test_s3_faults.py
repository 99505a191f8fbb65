"""What networks and servers do to an object store: nothing is visible half, and each error is the one that is said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest

from archive.s3_access import S3Access
from archive.s3_objects import S3Objects
from archive.s3_store import S3SegmentStore
from region.seaweedfs import SeaweedS3
from runtime.errors import OutOfSpace, Retryable
from tests.archive.samples import TENANT, StepClock, unfileable
from tests.region.proxy import Proxy
from tests.region.s3 import access_to
from tests.waiting import until

MIB = 2**20
CONTENT = bytes(range(256)) * 8192


@pytest.fixture
def proxy(seaweed: SeaweedS3) -> Iterator[Proxy]:
    with Proxy(seaweed.port) as opened:
        yield opened


@pytest.fixture
def access(proxy: Proxy) -> S3Access:
    return access_to(proxy.port, read_timeout_s=1.0, request_timeout_s=2.0)


@pytest.fixture
def store(access: S3Access) -> S3SegmentStore:
    """Has put once, so that its README is there."""
    opened = S3SegmentStore(access, clock=StepClock())
    opened.put_journal({"kind": "x"})
    return opened


def batches(store: S3SegmentStore) -> list[str]:
    return list(store.keys(f"{TENANT}/"))


def put_again(store: S3SegmentStore, batch: list[object], keys: int = 1) -> None:
    """The same members may be put again, and are there once."""
    (location,) = store.put(TENANT, batch).locations  # type: ignore[arg-type]
    assert store.read(location) == CONTENT
    assert len(batches(store)) == keys


@pytest.mark.parametrize("after_bytes", [0, 500, MIB])
def test_a_put_dropped_in_the_middle(store: S3SegmentStore, proxy: Proxy, after_bytes: int) -> None:
    batch = [unfileable("q1", CONTENT)]
    proxy.drop_request_after(after_bytes)
    with pytest.raises(Retryable, match="does not answer"):
        store.put(TENANT, batch)
    assert proxy.settled.is_set()
    assert batches(store) == []
    put_again(store, list(batch))


def test_a_put_whose_answer_is_lost_is_found_and_compared(store: S3SegmentStore, proxy: Proxy) -> None:
    batch = [unfileable("q1", CONTENT)]
    proxy.drop_answer_after(0)
    with pytest.raises(Retryable, match="does not answer"):
        store.put(TENANT, batch)
    (there,) = batches(store)
    assert store.put(TENANT, batch).key == there
    put_again(store, [unfileable("q2", CONTENT)], keys=2)


def test_a_verification_that_is_lost_makes_no_second_segment(store: S3SegmentStore, proxy: Proxy) -> None:
    """The PUT is answered, in some 250 bytes; the HEAD after it is not."""
    batch = [unfileable("q1", CONTENT)]
    proxy.drop_answer_after(400)
    with pytest.raises(Retryable, match="cannot verify a segment"):
        store.put(TENANT, batch)
    (there,) = batches(store)
    assert store.put(TENANT, batch).key == there
    assert batches(store) == [there]


def test_a_put_that_is_answered_and_not_kept_is_no_success(store: S3SegmentStore, proxy: Proxy) -> None:
    batch = [unfileable("q1", CONTENT)]
    proxy.answer(200, headers='ETag: "0123"\r\n')
    with pytest.raises(Retryable, match="has not what was put"):
        store.put(TENANT, batch)
    assert batches(store) == []
    put_again(store, list(batch))


def test_a_put_is_verified_by_length_and_e_tag(store: S3SegmentStore, access: S3Access) -> None:
    objects, key = S3Objects(access), store.put(TENANT, [unfileable("q1", CONTENT)]).key
    size_bytes = store.size_bytes(key)
    e_tag = obstore.head(access.reading(), f"segments/{key}")["e_tag"]
    objects.require_whole(key, size_bytes, e_tag)
    for size, tag in ((size_bytes + 1, e_tag), (size_bytes, '"0123"')):
        with pytest.raises(Retryable, match="has not what was put"):
            objects.require_whole(key, size, tag)


def test_a_put_that_changes_on_the_way_is_refused(store: S3SegmentStore, proxy: Proxy) -> None:
    batch = [unfileable("q1", CONTENT)]
    proxy.flip_request_bit_after(MIB)
    with pytest.raises(Retryable, match="400 BadDigest"):
        store.put(TENANT, batch)
    assert proxy.settled.is_set()
    assert batches(store) == []
    put_again(store, list(batch))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b"<Error><Code>InternalError</Code><Message>secret-of-the-worker</Message></Error>", Retryable),
        (503, b"<Error><Code>SlowDown</Code></Error>", Retryable),
        (507, b"", OutOfSpace),
        (403, b"<Error><Code>QuotaExceeded</Code></Error>", OutOfSpace),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", Retryable),
    ],
)
def test_answers_to_a_put(
    store: S3SegmentStore, proxy: Proxy, status: int, body: bytes, error: type[Exception]
) -> None:
    batch = [unfileable("q1", CONTENT)]
    proxy.answer(status, body)
    with pytest.raises(error) as told:
        store.put(TENANT, batch)
    assert type(told.value) is error
    assert "secret" not in str(told.value)
    put_again(store, list(batch))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b"<Error><Code>InternalError</Code></Error>", Retryable),
        (403, b"<Error><Code>AccessDenied</Code></Error>", Retryable),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", Retryable),
        (404, b"<Error><Code>NoSuchKey</Code></Error>", FileNotFoundError),
    ],
)
def test_answers_to_a_read(
    store: S3SegmentStore, proxy: Proxy, status: int, body: bytes, error: type[Exception]
) -> None:
    put = store.put(TENANT, [unfileable("q1", CONTENT)])
    attempts: list[Callable[[], object]] = [
        lambda: store.read(put.locations[0]),
        lambda: store.read(put.locations[0], 0, 0),
        lambda: next(store.stream(put.locations[0])),
        lambda: store.index(put.key),
        lambda: store.size_bytes(put.key),
    ]
    for attempt in attempts:
        proxy.answer(status, body)
        with pytest.raises(error):
            attempt()
    proxy.answer(500)
    with pytest.raises(Retryable, match="cannot list segments"):
        list(store.keys())
    proxy.answer(500)
    with pytest.raises(Retryable, match="cannot list segments"):
        list(store.newest_first())


def test_a_read_dropped_in_the_middle(store: S3SegmentStore, proxy: Proxy) -> None:
    (location,) = store.put(TENANT, [unfileable("q1", CONTENT)]).locations
    for attempt in (lambda: store.read(location), lambda: b"".join(store.stream(location))):
        proxy.drop_answer_after(MIB)
        with pytest.raises(Retryable):
            attempt()
        assert proxy.settled.is_set()
    assert store.read(location) == CONTENT


def test_a_client_that_may_repeat_does_so(proxy: Proxy, access: S3Access) -> None:
    patient = S3SegmentStore(access_to(proxy.port, access.prefix, retries_max=3), clock=StepClock())
    proxy.answer(500, times=2)
    (location,) = patient.put(TENANT, [unfileable("q1", CONTENT)]).locations
    proxy.answer(503, times=2)
    assert patient.read(location) == CONTENT
    proxy.drop_answer_after(MIB)
    assert patient.read(location) == CONTENT


def test_what_takes_too_long_is_given_up(store: S3SegmentStore, proxy: Proxy) -> None:
    batch = [unfileable("q1", CONTENT)]
    (location,) = store.put(TENANT, [unfileable("q0", CONTENT)]).locations
    proxy.hold()
    with pytest.raises(Retryable, match="does not answer"):
        store.read(location)
    with pytest.raises(Retryable, match="does not answer"):
        store.put(TENANT, batch)
    proxy.release()
    assert store.read(location) == CONTENT
    put_again(store, list(batch), keys=2)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedS3]:
    """For tests that freeze and kill it."""
    with SeaweedS3(tmp_path_factory.mktemp("own")) as server:
        yield server


def test_a_server_that_is_frozen_and_thawed(own_server: SeaweedS3) -> None:
    store = S3SegmentStore(access_to(own_server.port, read_timeout_s=1.0, request_timeout_s=1.0), clock=StepClock())
    (before,) = store.put(TENANT, [unfileable("q0", CONTENT)]).locations
    batch = [unfileable("q1", CONTENT)]
    own_server.freeze()
    try:
        with pytest.raises(Retryable):
            store.put(TENANT, batch)
        with pytest.raises(Retryable):
            store.read(before)
    finally:
        own_server.thaw()
    until(lambda: _answers(store), what="the thawed server's answer")
    put_again(store, list(batch), keys=2)
    assert store.read(before) == CONTENT


def test_a_server_that_is_killed_and_comes_back(own_server: SeaweedS3) -> None:
    store = S3SegmentStore(access_to(own_server.port), clock=StepClock())
    (before,) = store.put(TENANT, [unfileable("q0", CONTENT)]).locations
    batch = [unfileable("q1", CONTENT)]
    own_server.kill()
    try:
        with pytest.raises(Retryable, match="does not answer"):
            store.put(TENANT, batch)
        with pytest.raises(Retryable, match="does not answer"):
            store.read(before)
        with pytest.raises(Retryable, match="does not answer"):
            list(store.keys())
    finally:
        own_server.start()
    put_again(store, list(batch), keys=2)
    assert store.read(before) == CONTENT


def test_killed_while_it_takes_a_put(own_server: SeaweedS3) -> None:
    store = S3SegmentStore(access_to(own_server.port), clock=StepClock())
    store.put_journal({"kind": "x"})
    content = CONTENT * 32
    batch = [unfileable("q1", content)]
    outcome: list[object] = []

    def put() -> None:
        try:
            outcome.append(store.put(TENANT, batch))
        except Retryable as error:
            outcome.append(error)

    putting = threading.Thread(target=put)
    putting.start()
    own_server.kill()
    putting.join(30)
    own_server.start()
    assert len(outcome) == 1
    for key in batches(store):
        assert len(store.index(key)) == 1, "whole, or not there"
    (location,) = store.put(TENANT, batch).locations
    assert store.read(location) == content


def test_every_port_of_the_server_is_on_loopback_only(own_server: SeaweedS3) -> None:
    until(lambda: len(_listening("tcp", own_server)) == len(own_server.ports), what="the last of the ports")
    assert {address for _, address in _listening("tcp", own_server)} == {"0100007F"}
    assert _listening("tcp6", own_server) == []


def _listening(family: str, server: SeaweedS3) -> list[tuple[int, str]]:
    """Ports of the server that are listened on, and the addresses, as the kernel writes them."""
    lines = [line.split() for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]]
    bound = [one[1].split(":") for one in lines if one[3] == "0A"]
    return [(int(port, 16), address) for address, port in bound if int(port, 16) in server.ports]


def _answers(store: S3SegmentStore) -> bool:
    try:
        list(store.keys())
    except Retryable:
        return False
    return True
