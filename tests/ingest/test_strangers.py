"""Strangers on the DICOM port: lengths that lie, streams that never end, sockets that say nothing, rubbish names."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.arrival import HEADER_ROOM_BYTES
from ingest.dimse.association_pdu import MalformedPdu, decode_request
from ingest.dimse.command import MalformedCommand, decode_command
from ingest.dimse.wire import READ_AHEAD_BYTES
from instances.part10 import split
from runtime.settings import MIB
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset
from tests.ingest.conftest import RunningEdge, StartEdge, large_file
from tests.ingest.peers import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    VERIFICATION,
    associate_rq,
    command_set,
    element,
    pdu,
    pdv,
)

MR = (1, MR_IMAGE_STORAGE, (EXPLICIT_LE,))
ECHO = (1, VERIFICATION, (IMPLICIT_LE,))
LOCAL_LIMIT_EXCEEDED = (0x03, bytes([0, 2, 3, 2]))
STORE = command_set(0x0001, sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid="1.2.3")


def assert_echo(edge: RunningEdge) -> None:
    with edge.peer() as peer:
        assert peer.associate(ECHO), "the association was rejected"
        assert peer.echo().status == 0
        assert peer.release() == 0x06


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack(">BBI", 0x04, 0, 0xFFFFFFFF), 6),
        (struct.pack(">BBI", 0x04, 0, 131072 + 13), 6),
        (struct.pack(">BBIIBB", 0x04, 0, 100, 0xFFFFFFFF, 1, 3), 6),
        (struct.pack(">BBIIBB", 0x04, 0, 100, 97, 1, 3), 6),
        (struct.pack(">BBIIBB", 0x04, 0, 100, 0, 1, 3), 6),
        (struct.pack(">BBI", 0x04, 0, 3) + b"abc", 6),
        (pdu(0x04, pdv(1, 1, bytes(20000))), 6),
        (pdu(0x04, pdv(1, 3, b"no command set")), 6),
        (pdu(0x04, pdv(1, 3, element(0x0100, b"\1\0")[:-1])), 6),
        (pdu(0x04, pdv(1, 2, b"data without a command")), 5),
        (pdu(0x04, pdv(99, 3, STORE)), 5),
        (pdu(0x04, pdv(1, 3, STORE)) + pdu(0x04, pdv(3, 0, b"data of another context")), 5),
        (pdu(0x04, pdv(1, 3, STORE)) + pdu(0x04, pdv(1, 3, STORE)), 5),
        (pdu(0x04, pdv(1, 1, STORE[:20])) + pdu(0x04, pdv(3, 3, STORE[20:])), 5),
        (pdu(0x04, pdv(1, 3, command_set(0x8001, sop_class_uid=MR_IMAGE_STORAGE))), 5),
        (associate_rq(MR), 2),
        (pdu(0x06, bytes(4)), 2),
        (struct.pack(">BBI", 0x09, 0, 4), 1),
        (struct.pack(">BBI", 0x05, 0, 0xFFFFFFFF), 6),
    ],
)
def test_a_broken_association_is_aborted(running_edge: RunningEdge, sent: bytes, reason: int) -> None:
    with running_edge.peer() as peer:
        peer.associate(MR, (3, MR_IMAGE_STORAGE, (IMPLICIT_LE,)))
        peer.send(sent)
        assert peer.read_pdu() == (0x07, bytes([0, 0, 2, reason]))
        assert_echo(running_edge)
    assert running_edge.received(0) == []


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">BBI", 0x01, 0, 0xFFFFFFFF),
        pdu(0x01, b"short"),
        associate_rq(MR, extra=b"\x20\0\xff\xff"),
        associate_rq(MR, extra=b"\x20\0\0\1x"),
        associate_rq(MR, extra=b"\x20"),
        b"\x04\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_a_broken_request_is_aborted(running_edge: RunningEdge, sent: bytes) -> None:
    with running_edge.peer() as peer:
        peer.send(sent)
        kind, body = peer.read_pdu()
        assert (kind, body[2]) == (0x07, 2)
        assert_echo(running_edge)


def test_fragments_that_never_end(start_edge: StartEdge) -> None:
    """Over the object limit: 0xA700, then A-ABORT; memory stays under the stated formula, and nothing is left."""
    edge = start_edge(object_max_bytes=8 * MIB, inline_max_bytes=MIB)
    head = dataset_bytes(mr_dataset(1, rows=8, columns=8))[:600]
    uid = mr_dataset(1).SOPInstanceUID
    fragment = pdu(0x04, pdv(1, 0, bytes(65536)))
    with edge.peer() as peer:
        peer.associate(MR)
        tracemalloc.start()
        try:
            peer.send_store_command(MR_IMAGE_STORAGE, uid)
            peer.send(pdu(0x04, pdv(1, 0, head)))
            with contextlib.suppress(ConnectionError):
                for _ in range(8 * MIB // 65536 + 20):
                    peer.send(fragment)
            assert peer.read_response().status == 0xA700
            assert peer.read_pdu()[0] == 0x07
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert_echo(edge)
    assert peak_bytes < MIB + READ_AHEAD_BYTES + 2 * 65536 + MIB // 2
    assert edge.received(0) == []
    assert not [path for path in edge.settings.archive_dir.rglob("*") if path.is_file()]


def test_half_open_and_idle_sockets_up_to_the_limits(start_edge: StartEdge) -> None:
    edge = start_edge(associations_max=6, associations_per_caller_max=6)
    with contextlib.ExitStack() as open_sockets:
        half_open = [open_sockets.enter_context(edge.peer()) for _ in range(5)]
        half_open[0].send(associate_rq(MR)[:50])
        idle = [open_sockets.enter_context(edge.peer()) for _ in range(6)]
        assert all(peer.associate(MR) for peer in idle)
        assert_echo(edge)
        late = open_sockets.enter_context(edge.peer())
        late.send(associate_rq(MR))
        assert late.read_pdu() == LOCAL_LIMIT_EXCEEDED
        # Idle verification associations beyond the reserve push out the oldest of their kind, nothing else.
        echoes = [open_sockets.enter_context(edge.peer()) for _ in range(5)]
        assert all(peer.associate(ECHO) for peer in echoes)
        assert echoes[0].read_pdu() == (0, b"")
        assert_echo(edge)
        assert idle[0].release() == 0x06
        assert echoes[4].echo().status == 0
        # Ever more half-open sockets close the oldest one that has no association.
        more = [open_sockets.enter_context(edge.peer()) for _ in range(6)]
        assert half_open[0].read_pdu() == (0, b"")
        assert_echo(edge)
        assert idle[1].release() == 0x06
        assert more[-1].associate(MR)


def test_one_caller_cannot_take_all_places(start_edge: StartEdge) -> None:
    edge = start_edge(associations_max=4, associations_per_caller_max=2)
    with edge.peer("127.0.0.2") as one, edge.peer("127.0.0.2") as two, edge.peer("127.0.0.2") as three:
        assert one.associate(MR)
        assert two.associate(MR)
        three.send(associate_rq(MR))
        assert three.read_pdu() == LOCAL_LIMIT_EXCEEDED
        with edge.peer("127.0.0.3") as other:
            assert other.associate(MR)
        assert one.release() == 0x06
        with edge.peer("127.0.0.2") as again:
            assert again.associate(MR)


def test_silence_before_the_request(start_edge: StartEdge) -> None:
    edge = start_edge(artim_timeout_s=0.2)
    with edge.peer() as silent, edge.peer() as halting:
        halting.send(associate_rq(MR)[:80])
        assert silent.read_pdu() == (0, b"")
        assert halting.read_pdu() == (0, b"")


def test_silence_inside_an_association(start_edge: StartEdge) -> None:
    edge = start_edge(idle_timeout_s=0.2, artim_timeout_s=60.0)
    with edge.peer() as idle, edge.peer() as stalled:
        assert idle.associate(MR)
        assert stalled.associate(MR)
        stalled.send(pdu(0x04, pdv(1, 3, STORE))[:40])
        assert idle.read_pdu() == (0x07, bytes([0, 0, 2, 0]))
        assert stalled.read_pdu() == (0x07, bytes([0, 0, 2, 0]))


def test_a_message_that_trickles(start_edge: StartEdge) -> None:
    """Each byte comes in time, the message never would: nobody keeps a place that way."""
    edge = start_edge(idle_timeout_s=0.3, artim_timeout_s=60.0)
    with edge.peer() as peer:
        assert peer.associate(MR)
        for byte in pdu(0x04, pdv(1, 3, STORE)) + pdu(0x04, pdv(1, 0, bytes(60_000))):
            if peer.is_answered(within_s=0.02):
                break
            peer.send(bytes([byte]))
        assert peer.read_pdu() == (0x07, bytes([0, 0, 2, 0]))


def test_command_and_dataset_disagree(running_edge: RunningEdge) -> None:
    dataset = mr_dataset(1, rows=8, columns=8)
    sent = dataset_bytes(dataset)
    with running_edge.peer() as peer:
        peer.associate(MR, (3, "1.2.840.10008.5.1.4.1.1.2", (EXPLICIT_LE,)))
        answer = peer.store(MR_IMAGE_STORAGE, "1.2.3.4", sent)
        assert (answer.status, answer.sop_instance_uid) == (0xA900, "1.2.3.4")
        assert peer.store("1.2.840.10008.5.1.4.1.1.2", dataset.SOPInstanceUID, sent, context_id=3).status == 0xA900
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, sent).status == 0
    assert len(running_edge.received(1)) == 1


@pytest.mark.parametrize("dataset", [b"", b"\0", b"rubbish" * 30, bytes(100)])
def test_an_unreadable_head(running_edge: RunningEdge, dataset: bytes) -> None:
    with running_edge.peer() as peer:
        peer.associate(MR)
        peer.send_store_command(MR_IMAGE_STORAGE, "1.2.3")
        peer.send(pdu(0x04, pdv(1, 2, dataset)))
        assert peer.read_response().status == 0xC000
    assert running_edge.received(0) == []


def test_a_store_without_a_dataset(running_edge: RunningEdge) -> None:
    command = bytearray(STORE)
    type_at = command.index(struct.pack("<HHI", 0, 0x0800, 2)) + 8
    command[type_at : type_at + 2] = b"\x01\x01"
    with running_edge.peer() as peer:
        peer.associate(MR)
        peer.send(pdu(0x04, pdv(1, 3, bytes(command))))
        assert peer.read_response().status == 0xC000


def test_a_truncated_dataset_is_kept_as_it_came(running_edge: RunningEdge) -> None:
    dataset = mr_dataset(1)
    sent = dataset_bytes(dataset)[:-1000]
    with running_edge.peer() as peer:
        peer.associate(MR)
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, sent).status == 0
    assert bytes(split(running_edge.received()[0].value)[1]) == sent


@pytest.mark.parametrize("inline_max_bytes", [4096, MIB])
def test_traversal_shaped_uids(start_edge: StartEdge, inline_max_bytes: int) -> None:
    """Accepted, for a worker to quarantine; never a path, whatever they say."""
    edge = start_edge(inline_max_bytes=inline_max_bytes)
    hostile = "../../../../tmp/sansfilm-" + "x" * 200
    dataset = dataset_bytes(mr_dataset(1))
    for keyword in ("SOPInstanceUID", "StudyInstanceUID"):
        uid = str(getattr(mr_dataset(1), keyword)).encode()
        uid += b"\0" * (len(uid) % 2)
        before, after = dataset.split(struct.pack("<2sH", b"UI", len(uid)) + uid, 1)
        value = hostile.encode() + b"\0" * (len(hostile) % 2)
        dataset = before + struct.pack("<2sH", b"UI", len(value)) + value + after
    with edge.peer() as peer:
        peer.associate(MR)
        assert peer.store(MR_IMAGE_STORAGE, hostile, dataset).status == 0
    (message,) = edge.received()
    data_dir = edge.settings.data_dir
    assert set(data_dir.parent.iterdir()) == {data_dir}
    if message.attributes.data_ref:
        assert bytes(split(large_file(edge.settings, message))[1]) == dataset
        (segment,) = edge.settings.archive_dir.rglob("*.tar")
        assert segment.name.removesuffix(".tar") in message.attributes.data_ref
    else:
        assert bytes(split(message.value)[1]) == dataset
    assert message.attributes.sop_instance_uid == hostile[:128]


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        (b"\xff\xfe\x00\x1b[2J\n\r\t/../..", "??" + "??[2J???/../.."),
        (b" " * 16, ""),
        (b"\0" * 16, ""),
        (b"../../etc/passwd", "../../etc/passwd"),
        (b"A\\B", "A?B"),
    ],
)
def test_rubbish_ae_titles(running_edge: RunningEdge, title: bytes, kept: str) -> None:
    dataset = mr_dataset(1, rows=8, columns=8)
    with running_edge.peer() as peer:
        peer.associate(MR, calling_ae=title, called_ae=title)
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0
    attributes = running_edge.received()[0].attributes
    assert attributes.calling_ae == attributes.called_ae == kept


@pytest.mark.parametrize("rows", [8, 1024])
def test_a_full_disk_refuses_and_keeps_nothing(start_edge: StartEdge, rows: int) -> None:
    edge = start_edge(disk_reserve_bytes=1 << 60)
    dataset = mr_dataset(1, rows=rows, columns=rows)
    with edge.peer() as peer:
        peer.associate(MR)
        answer = peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset))
        assert answer.status == 0xA700 and answer.comment
        assert_echo(edge)
    assert edge.received(0) == []
    assert not list(edge.settings.data_dir.rglob("*.part")) and not list(edge.settings.data_dir.rglob("*.tar"))


@pytest.mark.parametrize("last_word", [b"", pdu(0x07, bytes(4)), pdu(0x05, bytes(4))])
def test_a_sender_that_leaves_in_the_middle(start_edge: StartEdge, last_word: bytes) -> None:
    edge = start_edge(inline_max_bytes=4096)
    dataset = mr_dataset(1)
    with edge.peer() as peer:
        peer.associate(MR)
        peer.send_store_command(MR_IMAGE_STORAGE, dataset.SOPInstanceUID)
        peer.send(pdu(0x04, pdv(1, 0, dataset_bytes(dataset)[:8000])) + last_word)
        if last_word[:1] == b"\x05":
            peer.read_pdu()
    edge.drain()
    assert edge.received(0) == []
    assert not [path for path in edge.settings.archive_dir.rglob("*") if path.is_file()]


@given(st.binary(max_size=300))
def test_any_bytes_as_a_request(body: bytes) -> None:
    with contextlib.suppress(MalformedPdu):
        decode_request(body)
    with contextlib.suppress(MalformedPdu):
        decode_request(bytes(68) + body)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_command(encoded: bytes) -> None:
    with contextlib.suppress(MalformedCommand):
        decode_command(encoded)


@given(st.integers(0, len(STORE) - 1), st.integers(0, 255))
def test_a_command_with_one_wrong_byte(place: int, value: int) -> None:
    with contextlib.suppress(MalformedCommand):
        decode_command(STORE[:place] + bytes([value]) + STORE[place + 1 :])


def test_the_header_fits_its_room(running_edge: RunningEdge) -> None:
    """Names as long as they can be: what is carried along is cut before it outgrows the room kept for it."""
    uid = "1." + "9" * 400
    dataset = mr_dataset(1, rows=8, columns=8)
    dataset_sent = dataset_bytes(dataset).replace(
        struct.pack("<2sH", b"UI", len(dataset.SOPInstanceUID) + len(dataset.SOPInstanceUID) % 2)
        + dataset.SOPInstanceUID.encode()
        + b"\0" * (len(dataset.SOPInstanceUID) % 2),
        struct.pack("<2sH", b"UI", len(uid)) + uid.encode(),
        1,
    )
    with running_edge.peer() as peer:
        peer.associate(MR, calling_ae=b"A" * 16)
        assert peer.store(MR_IMAGE_STORAGE, uid, dataset_sent).status == 0
    value = running_edge.received()[0].value
    assert len(value) - len(dataset_sent) < HEADER_ROOM_BYTES
    assert bytes(split(value)[1]) == dataset_sent
