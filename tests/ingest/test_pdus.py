"""Our association PDUs and command sets against pynetdicom's."""

from __future__ import annotations

from io import BytesIO

import pytest
from pynetdicom import build_context, build_role
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    UserIdentityNegotiation,
)

from ingest.dimse.association_pdu import (
    AbortReason,
    Rejection,
    decode_request,
    encode_abort,
    encode_rejection,
    encode_release_response,
)
from ingest.dimse.command import Command, decode_command, encode_response, encode_response_pdus
from tests.datasets import MR_IMAGE_STORAGE


def pynetdicom_request() -> bytes:
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "CALLING", "CALLED"
    contexts = [build_context(MR_IMAGE_STORAGE, ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])]
    contexts.append(build_context("1.2.840.10008.1.1"))
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = contexts
    maximum, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    maximum.maximum_length_received = 4321
    implementation.implementation_class_uid = "1.2.3"
    version, identity = ImplementationVersionNameNotification(), UserIdentityNegotiation()
    version.implementation_version_name = "VERSION"
    identity.user_identity_type, identity.primary_field = 1, b"user"
    role = build_role(MR_IMAGE_STORAGE, scu_role=True, scp_role=True)
    request.user_information = [maximum, implementation, version, identity, role]
    return A_ASSOCIATE_RQ(request).encode()


def test_a_request_of_pynetdicom() -> None:
    request = decode_request(pynetdicom_request()[6:])
    assert (request.calling_ae, request.called_ae, request.protocol_version) == ("CALLING", "CALLED", 1)
    assert request.application_context == b"1.2.840.10008.3.1.1.1"
    assert [context.context_id for context in request.contexts] == [1, 3]
    assert request.contexts[0].abstract_syntax == MR_IMAGE_STORAGE
    assert request.contexts[0].transfer_syntaxes == ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
    assert request.peer_pdu_max_bytes == 4321 and request.implementation == "VERSION"
    (role,) = request.roles
    assert (role.sop_class_uid, role.scu, role.scp) == (MR_IMAGE_STORAGE, True, True)


def test_what_pynetdicom_reads_of_us() -> None:
    rejected, aborted, released = A_ASSOCIATE_RJ(), A_ABORT_RQ(), A_RELEASE_RP()
    rejected.decode(encode_rejection(Rejection.LOCAL_LIMIT_EXCEEDED))
    assert (rejected.result, rejected.source, rejected.reason_diagnostic) == (2, 3, 2)
    aborted.decode(encode_abort(AbortReason.INVALID_PARAMETER))
    assert (aborted.source, aborted.reason_diagnostic) == (2, 6)
    released.decode(encode_release_response())
    assert released.encode() == encode_release_response()


def test_a_command_of_pynetdicom() -> None:
    primitive = C_STORE()
    primitive.MessageID = 77
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MR_IMAGE_STORAGE, "1.2.3.4.5"
    primitive.Priority, primitive.DataSet = 2, BytesIO(b"x")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    command = b"".join(
        data[1:] for pdu in message.encode_msg(1, 16382) for _, data in pdu.presentation_data_value_list if data[0] & 1
    )
    assert decode_command(command) == Command(
        field=1, message_id=77, sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid="1.2.3.4.5", has_dataset=True
    )


@pytest.mark.parametrize("peer_pdu_max_bytes", [0, 16, 40, 16384])
@pytest.mark.parametrize("comment", ["", "SOP Instance UID is not the command's", "x" * 100])
def test_a_response_read_by_pynetdicom(peer_pdu_max_bytes: int, comment: str) -> None:
    request = Command(
        field=1, message_id=513, sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid="1.2.3", has_dataset=True
    )
    sent = encode_response_pdus(5, encode_response(request, 0xA900, comment), peer_pdu_max_bytes)
    command = b""
    while sent:
        size = 6 + int.from_bytes(sent[2:6], "big")
        one, sent = sent[:size], sent[size:]
        pdu = P_DATA_TF()
        pdu.decode(one)
        assert peer_pdu_max_bytes == 0 or size - 6 <= max(peer_pdu_max_bytes, 22)
        (item,) = pdu.presentation_data_value_items
        assert item.presentation_context_id == 5
        assert bool(item.presentation_data_value[0] & 2) == (not sent)
        command += item.presentation_data_value[1:]
    answer = decode(BytesIO(command), True, True)
    assert (answer.CommandField, answer.Status, answer.MessageIDBeingRespondedTo) == (0x8001, 0xA900, 513)
    assert answer.get("ErrorComment", "") == comment[:64]
    assert answer.AffectedSOPInstanceUID == "1.2.3" and answer.CommandDataSetType == 0x0101
    assert answer.CommandGroupLength == len(command) - 12
