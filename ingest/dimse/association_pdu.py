"""Association PDUs: A-ASSOCIATE-RQ decoded, everything we answer encoded (PS3.8 9.3, PS3.7 Annex D).

Items and sub-items of unknown type are skipped, as PS3.8 9.3.1 demands; AE titles may hold any rubbish. Nothing is
allocated by a length the peer claims: an item ends where the PDU that holds it ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ingest.dimse.acceptance import PresentationContext, ProposedContext

APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
#: Presentation context ids are the odd numbers below 256, so no request has more.
CONTEXTS_MAX: Final = 128
_FIXED_SIZE: Final = 68


class PduType(IntEnum):
    """PS3.8 9.3.1."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class Rejection(IntEnum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), as one number."""

    NO_REASON = 0x010101
    APPLICATION_CONTEXT_NOT_SUPPORTED = 0x010102
    CALLED_AE_NOT_RECOGNIZED = 0x010107
    PROTOCOL_VERSION_NOT_SUPPORTED = 0x010202
    LOCAL_LIMIT_EXCEEDED = 0x020302


class AbortReason(IntEnum):
    """Reason of an A-ABORT by the service provider (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class MalformedPdu(Exception):
    """The PDU does not follow PS3.8 9.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSelection:
    """SCP/SCU role selection (PS3.7 D.3.3.4)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """An A-ASSOCIATE-RQ. AE titles have their padding and everything unprintable removed; the raw fields are echoed."""

    protocol_version: int
    called_ae: str
    calling_ae: str
    ae_fields: bytes
    application_context: bytes
    contexts: tuple[ProposedContext, ...]
    roles: tuple[RoleSelection, ...]
    #: Largest P-DATA-TF the peer receives; 0 is no limit.
    peer_pdu_max_bytes: int
    implementation: str


def decode_request(pdu: bytes) -> AssociationRequest:
    """Decode an A-ASSOCIATE-RQ, its six bytes of PDU type and length excluded.

    Raises:
        MalformedPdu: reject or abort; the peer does not speak PS3.8.
    """
    if len(pdu) < _FIXED_SIZE:
        raise MalformedPdu("an A-ASSOCIATE-RQ shorter than its fixed fields")
    application_context = b""
    contexts: list[ProposedContext] = []
    user = _UserInformation()
    for kind, body in _items(pdu[_FIXED_SIZE:]):
        if kind == 0x10:
            application_context = body.rstrip(b"\0 ")
        elif kind == 0x20 and len(contexts) < CONTEXTS_MAX:
            contexts.append(_context(body))
        elif kind == 0x50:
            user.decode(body)
    return AssociationRequest(
        protocol_version=int.from_bytes(pdu[0:2], "big"),
        called_ae=_ae_title(pdu[4:20]),
        calling_ae=_ae_title(pdu[20:36]),
        ae_fields=pdu[4:_FIXED_SIZE],
        application_context=application_context,
        contexts=tuple(contexts),
        roles=tuple(user.roles),
        peer_pdu_max_bytes=user.pdu_max_bytes,
        implementation=user.implementation,
    )


def encode_acceptance(
    request: AssociationRequest,
    contexts: Sequence[PresentationContext],
    *,
    pdu_max_bytes: int,
    implementation_class_uid: str,
    implementation_version: str,
) -> bytes:
    """An A-ASSOCIATE-AC. Roles are answered for what was asked and accepted: the peer may be SCU, never SCP."""
    accepted = {context.abstract_syntax for context in contexts if context.accepted}
    user = _item(0x51, struct.pack(">I", pdu_max_bytes)) + _item(0x52, implementation_class_uid.encode("ascii"))
    for role in request.roles:
        if role.sop_class_uid in accepted:
            uid = role.sop_class_uid.encode("ascii")
            user += _item(0x54, struct.pack(">H", len(uid)) + uid + bytes([role.scu, 0]))
    user += _item(0x55, implementation_version.encode("ascii"))
    body = struct.pack(">HH", 1, 0) + request.ae_fields + _item(0x10, APPLICATION_CONTEXT)
    body += b"".join(_answered_context(context) for context in contexts) + _item(0x50, user)
    return _pdu(PduType.A_ASSOCIATE_AC, body)


def encode_rejection(rejection: Rejection) -> bytes:
    """An A-ASSOCIATE-RJ."""
    return _pdu(PduType.A_ASSOCIATE_RJ, b"\0" + rejection.to_bytes(3, "big"))


def encode_release_response() -> bytes:
    """An A-RELEASE-RP."""
    return _pdu(PduType.A_RELEASE_RP, b"\0\0\0\0")


def encode_abort(reason: AbortReason) -> bytes:
    """An A-ABORT by the service provider."""
    return _pdu(PduType.A_ABORT, bytes([0, 0, 2, reason]))


class _UserInformation:
    """What we read of the User Information item; user identity and asynchronous operations are not for us."""

    def __init__(self) -> None:
        self.pdu_max_bytes = 0
        self.implementation = ""
        self.roles: list[RoleSelection] = []

    def decode(self, body: bytes) -> None:
        for kind, value in _items(body):
            if kind == 0x51 and len(value) == 4:
                self.pdu_max_bytes = int.from_bytes(value, "big")
            elif kind == 0x55:
                self.implementation = _printable(value[:16])
            elif kind == 0x54 and len(value) >= 4:
                size = int.from_bytes(value[:2], "big")
                roles = value[2 + size : 4 + size]
                if len(roles) == 2 and len(self.roles) < CONTEXTS_MAX:
                    uid = _uid(value[2 : 2 + size])
                    self.roles.append(RoleSelection(sop_class_uid=uid, scu=roles[0] == 1, scp=roles[1] == 1))


def _context(body: bytes) -> ProposedContext:
    if len(body) < 4:
        raise MalformedPdu("a presentation context shorter than its fixed fields")
    abstract_syntax, transfer_syntaxes = "", []
    for kind, value in _items(body[4:]):
        if kind == 0x30:
            abstract_syntax = _uid(value)
        elif kind == 0x40:
            transfer_syntaxes.append(_uid(value))
    return ProposedContext(
        context_id=body[0], abstract_syntax=abstract_syntax, transfer_syntaxes=tuple(transfer_syntaxes)
    )


def _answered_context(context: PresentationContext) -> bytes:
    head = bytes([context.context_id, 0, context.result, 0])
    return _item(0x21, head + _item(0x40, context.transfer_syntax.encode("ascii", "replace")))


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    offset, end = 0, len(body)
    while offset < end:
        if end - offset < 4:
            raise MalformedPdu("an item shorter than its header")
        size = int.from_bytes(body[offset + 2 : offset + 4], "big")
        if size > end - offset - 4:
            raise MalformedPdu("an item longer than what holds it")
        yield body[offset], body[offset + 4 : offset + 4 + size]
        offset += 4 + size


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _pdu(kind: PduType, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def _uid(value: bytes) -> str:
    """A UID as received: trailing padding removed; what is not ASCII can be no UID and stays recognisable as such."""
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def _ae_title(field: bytes) -> str:
    return _printable(field).strip()


def _printable(field: bytes) -> str:
    """ASCII without control characters and backslash (PS3.5 Table 6.2-1, AE); anything else becomes a question mark."""
    return "".join(chr(c) if 0x20 <= c < 0x7F and c != 0x5C else "?" for c in field.rstrip(b"\0"))
