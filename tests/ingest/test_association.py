"""Associations as the standard means them: negotiation, C-ECHO, C-STORE, release; the bytes kept are the bytes sent."""

from __future__ import annotations

import struct

import pytest
from pynetdicom.pdu import A_ASSOCIATE_AC

from instances.part10 import split
from segments.checksum import crc32c_hex
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset
from tests.ingest.conftest import RunningEdge, StartEdge, large_file
from tests.ingest.peers import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    VERIFICATION,
    answered,
    associate_rq,
    command_set,
    item,
    items,
    pdu,
    pdv,
)
from tests.waiting import until

MR = (1, MR_IMAGE_STORAGE, (EXPLICIT_LE,))
ECHO = (1, VERIFICATION, (IMPLICIT_LE,))
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def test_echo_and_release(running_edge: RunningEdge) -> None:
    with running_edge.peer() as peer:
        assert peer.associate(ECHO) == {1: (0, IMPLICIT_LE)}
        answer = peer.echo(message_id=513)
        assert (answer.field, answer.status, answer.message_id) == (0x8030, 0x0000, 513)
        assert peer.release() == 0x06
        assert peer.read_pdu() == (0, b"")


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT_LE, IMPLICIT_LE, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_the_bytes_kept_are_the_bytes_sent(running_edge: RunningEdge, transfer_syntax: str) -> None:
    dataset = mr_dataset(3)
    sent = dataset_bytes(dataset, transfer_syntax)
    with running_edge.peer() as peer:
        peer.associate((1, MR_IMAGE_STORAGE, (transfer_syntax,)), calling_ae=b"MR1", called_ae=b"SOMEONE")
        answer = peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, sent)
    assert (answer.field, answer.status, answer.sop_instance_uid) == (0x8001, 0x0000, dataset.SOPInstanceUID)
    (message,) = running_edge.received()
    meta, kept = split(message.value)
    assert bytes(kept) == sent
    assert (meta.transfer_syntax, meta.sop_instance_uid) == (transfer_syntax, dataset.SOPInstanceUID)
    attributes = message.attributes
    assert attributes.study_uid == dataset.StudyInstanceUID
    assert attributes.sop_instance_uid == dataset.SOPInstanceUID
    assert attributes.sop_class_uid == MR_IMAGE_STORAGE
    assert attributes.transfer_syntax == transfer_syntax
    assert (attributes.calling_ae, attributes.called_ae) == ("MR1", "SOMEONE")
    assert attributes.size_bytes == len(message.value)
    assert attributes.crc32c == crc32c_hex([message.value])
    assert attributes.source.startswith("/edge/") and attributes.time.endswith("Z")


@pytest.mark.parametrize("piece_bytes", [2, 1000, 131066])
def test_any_fragmentation(running_edge: RunningEdge, piece_bytes: int) -> None:
    dataset = mr_dataset(1, rows=40 if piece_bytes == 2 else 700, columns=40 if piece_bytes == 2 else 700)
    sent = dataset_bytes(dataset)
    with running_edge.peer() as peer:
        peer.associate(MR)
        peer.send_store_command(MR_IMAGE_STORAGE, dataset.SOPInstanceUID)
        peer.send_dataset(sent, piece_bytes=piece_bytes)
        assert peer.read_response().status == 0
    (message,) = running_edge.received()
    assert bytes(split(message.value)[1]) == sent


def test_command_and_data_in_one_pdu_and_an_empty_last_fragment(running_edge: RunningEdge) -> None:
    dataset = mr_dataset(1, rows=8, columns=8)
    sent = dataset_bytes(dataset)
    command = command_set(0x0001, sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid=dataset.SOPInstanceUID)
    with running_edge.peer() as peer:
        peer.associate(MR)
        pdvs = pdv(1, 1, command[:30]) + pdv(1, 3, command[30:]) + pdv(1, 0, sent) + pdv(1, 2, b"")
        peer.send(pdu(0x04, pdvs))
        assert peer.read_response().status == 0
    assert bytes(split(running_edge.received()[0].value)[1]) == sent


def test_pipelined_stores_are_answered_in_order(running_edge: RunningEdge) -> None:
    datasets = [mr_dataset(number, rows=16, columns=16) for number in range(1, 21)]
    with running_edge.peer() as peer:
        peer.associate(MR)
        for number, dataset in enumerate(datasets, 1):
            peer.send_store_command(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, message_id=number)
            peer.send_dataset(dataset_bytes(dataset))
        assert [peer.read_response().message_id for _ in datasets] == list(range(1, 21))
    messages = running_edge.received(20)
    assert [bytes(split(message.value)[1]) for message in messages] == [dataset_bytes(one) for one in datasets]


def test_a_large_instance_becomes_a_claim_check(start_edge: StartEdge) -> None:
    edge = start_edge(inline_max_bytes=65536)
    dataset = mr_dataset(1, rows=512, columns=512)
    sent = dataset_bytes(dataset)
    with edge.peer() as peer:
        peer.associate(MR, calling_ae=b"MR1")
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, sent).status == 0
    (message,) = edge.received()
    file = large_file(edge.settings, message)
    assert message.value == b"" and message.attributes.data_ref.startswith("default/")
    assert message.attributes.crc32c == crc32c_hex([file])
    assert bytes(split(file)[1]) == sent
    assert not list(edge.settings.archive_dir.rglob("*.part"))


@pytest.mark.parametrize("extra_bytes", [-1, 0, 1])
def test_the_border_between_inline_and_claim_check(start_edge: StartEdge, extra_bytes: int) -> None:
    dataset = mr_dataset(1, rows=64, columns=64)
    base = dataset_bytes(dataset)
    edge = start_edge(inline_max_bytes=len(base) + 1024 - extra_bytes)
    with edge.peer() as peer:
        peer.associate(MR)
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, base).status == 0
    (message,) = edge.received()
    assert bool(message.attributes.data_ref) == (extra_bytes > 0)
    file = large_file(edge.settings, message) if message.attributes.data_ref else message.value
    assert bytes(split(file)[1]) == base


def test_each_context_is_judged_alone(running_edge: RunningEdge) -> None:
    jpeg, jpip, private = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.94", "1.2.840.113619.5.2"
    contexts = (
        (1, MR_IMAGE_STORAGE, (jpeg, IMPLICIT_LE, EXPLICIT_LE)),
        (3, MR_IMAGE_STORAGE, (jpeg,)),
        (5, MR_IMAGE_STORAGE, (jpip,)),
        (7, "1.3.6.1.4.1.5962.301.9", (private, "1.2.840.10008.1.2.2")),
        (9, STUDY_ROOT_FIND, (IMPLICIT_LE,)),
        (11, "../../etc/passwd", (IMPLICIT_LE,)),
        (13, MR_IMAGE_STORAGE, (private,)),
        (15, MR_IMAGE_STORAGE, ()),
    )
    with running_edge.peer() as peer:
        answers = peer.associate(*contexts)
    assert answers[1] == (0, EXPLICIT_LE)
    assert answers[3] == (0, jpeg)
    assert answers[7] == (0, "1.2.840.10008.1.2.2")
    assert {number: result for number, (result, _) in answers.items() if result} == {5: 4, 9: 3, 11: 3, 13: 4, 15: 4}


def test_acceptance_reads_well_elsewhere(running_edge: RunningEdge) -> None:
    """pynetdicom decodes what we answer; unknown items and user identity do not disturb us."""
    role = item(0x54, struct.pack(">H", len(MR_IMAGE_STORAGE)) + MR_IMAGE_STORAGE.encode() + b"\1\1")
    identity = item(0x58, b"\1\1" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 0))
    user = role + identity + item(0x53, b"\0\5\0\5") + item(0x99, b"unheard of")
    with running_edge.peer() as peer:
        peer.send(associate_rq(MR, user=user, extra=item(0x77, b"unheard of either")))
        kind, body = peer.read_pdu()
    assert kind == 0x02
    acceptance = A_ASSOCIATE_AC()
    acceptance.decode(pdu(0x02, body))
    assert acceptance.user_information.maximum_length == running_edge.settings.pdu_max_bytes
    assert acceptance.user_information.role_selection[MR_IMAGE_STORAGE].scu_role
    assert not acceptance.user_information.role_selection[MR_IMAGE_STORAGE].scp_role
    assert acceptance.user_information.async_ops_window is None
    assert answered(body) == {1: (0, EXPLICIT_LE)}
    assert dict(items(body[68:]))[0x10] == b"1.2.840.10008.3.1.1.1"


def test_called_ae_is_checked_where_asked(start_edge: StartEdge) -> None:
    edge = start_edge(require_called_ae=True)
    with edge.peer() as peer:
        peer.send(associate_rq(ECHO, called_ae=b"OTHER"))
        assert peer.read_pdu() == (0x03, bytes([0, 1, 1, 7]))
    with edge.peer() as peer:
        assert peer.associate(ECHO, called_ae=b"SANSFILM")


def test_wrong_application_context_and_version(running_edge: RunningEdge) -> None:
    with running_edge.peer() as peer:
        peer.send(associate_rq(ECHO, application_context=b"1.2.3"))
        assert peer.read_pdu() == (0x03, bytes([0, 1, 1, 2]))
    with running_edge.peer() as peer:
        peer.send(associate_rq(ECHO, version=2))
        assert peer.read_pdu() == (0x03, bytes([0, 1, 2, 2]))


def test_other_commands(running_edge: RunningEdge) -> None:
    """C-CANCEL is ignored, an unknown operation is answered, and the association lives on."""
    with running_edge.peer() as peer:
        peer.associate(MR, (3, VERIFICATION, (IMPLICIT_LE,)))
        peer.send(pdu(0x04, pdv(1, 3, command_set(0x0FFF, sop_class_uid=MR_IMAGE_STORAGE))))
        peer.send(pdu(0x04, pdv(1, 3, command_set(0x0020, sop_class_uid=MR_IMAGE_STORAGE))))
        answer = peer.read_response()
        assert (answer.field, answer.status) == (0x8020, 0x0211)
        assert peer.echo(context_id=3).status == 0


def test_a_class_other_than_the_contexts_is_refused(running_edge: RunningEdge) -> None:
    dataset = mr_dataset(1, rows=8, columns=8)
    with running_edge.peer() as peer:
        peer.associate((1, "1.2.840.10008.5.1.4.1.1.2", (EXPLICIT_LE,)))
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0x0122
    assert running_edge.received(0) == []


def test_responses_fit_a_tiny_pdu(running_edge: RunningEdge) -> None:
    dataset = mr_dataset(1, rows=8, columns=8)
    with running_edge.peer() as peer:
        peer.associate(MR, pdu_max_bytes=32)
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0


def test_drain_finishes_the_instance_and_aborts_the_idle(start_edge: StartEdge) -> None:
    edge = start_edge(inline_max_bytes=4096)
    dataset = mr_dataset(1, rows=64, columns=64)
    sent = dataset_bytes(dataset)
    with edge.peer() as busy, edge.peer() as idle, edge.peer() as silent:
        busy.associate(MR)
        idle.associate(ECHO)
        assert idle.echo().status == 0
        busy.send_store_command(MR_IMAGE_STORAGE, dataset.SOPInstanceUID)
        busy.send(pdu(0x04, pdv(1, 0, sent[:7000])))
        # The claim check's file exists: the instance is being received.
        until(lambda: any(edge.settings.archive_dir.rglob("*.part")))
        edge.stop.set()
        assert idle.read_pdu() == (0x07, bytes([0, 0, 2, 0]))
        assert silent.read_pdu() == (0, b"")
        busy.send(pdu(0x04, pdv(1, 2, sent[7000:])))
        assert busy.read_response().status == 0
        assert busy.read_pdu()[0] == 0x07
    edge.drain()
    (message,) = edge.received()
    assert bytes(split(large_file(edge.settings, message))[1]) == sent


def test_a_peer_that_never_finishes_is_cut_at_the_deadline(start_edge: StartEdge) -> None:
    edge = start_edge(inline_max_bytes=4096, shutdown_timeout_s=0.5)
    with edge.peer() as peer:
        peer.associate(MR)
        peer.send_store_command(MR_IMAGE_STORAGE, mr_dataset(1).SOPInstanceUID)
        peer.send(pdu(0x04, pdv(1, 0, dataset_bytes(mr_dataset(1))[:7000])))
        until(lambda: any(edge.settings.archive_dir.rglob("*.part")))
        edge.drain()
        assert peer.read_pdu() == (0, b"")
    assert not [path for path in edge.settings.archive_dir.rglob("*") if path.is_file()]
    assert edge.received(0) == []
