"""Command sets: what we read of a request, and the responses we give (PS3.7 6.3, 9.3, Annex E). Always implicit VR."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

#: Longest command set taken; real ones have 100 to 300 bytes.
COMMAND_SIZE_MAX: Final = 16384
NO_DATASET: Final = 0x0101
SUCCESS: Final = 0x0000
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
UNRECOGNIZED_OPERATION: Final = 0x0211
_RESPONSE: Final = 0x8000
_COMMENT_SIZE_MAX: Final = 64


class CommandField(IntEnum):
    """(0000,0100), PS3.7 E.1-1; only those we act on."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


class MalformedCommand(Exception):
    """The bytes are no command set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a request's command set says."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_dataset: bool

    @property
    def is_response(self) -> bool:
        return bool(self.field & _RESPONSE)


def decode_command(encoded: bytes | bytearray) -> Command:
    """Decode a command set.

    Raises:
        MalformedCommand: abort; nothing after it can be understood.
    """
    values: dict[int, bytes] = {}
    offset, end = 0, len(encoded)
    while end - offset >= 8:
        group, element, size = _HEADER.unpack_from(encoded, offset)
        offset += 8
        if group != 0 or size > end - offset:
            raise MalformedCommand("an element outside group 0, or longer than the command set")
        if element in _READ:
            values[element] = bytes(encoded[offset : offset + size])
        offset += size
    if offset != end or _FIELD not in values:
        raise MalformedCommand("a command set without a command field, or with bytes left over")
    return Command(
        field=_number(values, _FIELD, 0),
        message_id=_number(values, _MESSAGE_ID, 0),
        sop_class_uid=_uid(values.get(_AFFECTED_CLASS) or values.get(_REQUESTED_CLASS, b"")),
        sop_instance_uid=_uid(values.get(_AFFECTED_INSTANCE) or values.get(_REQUESTED_INSTANCE, b"")),
        has_dataset=_number(values, _DATASET_TYPE, NO_DATASET) != NO_DATASET,
    )


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """The response's command set. `comment` explains a failure and never quotes a value of a data set."""
    body = _text(_AFFECTED_CLASS, request.sop_class_uid, b"\0")
    body += _short(_FIELD, request.field | _RESPONSE) + _short(_RESPONDED_TO, request.message_id)
    body += _short(_DATASET_TYPE, NO_DATASET) + _short(_STATUS, status)
    if comment:
        body += _text(_COMMENT, comment[:_COMMENT_SIZE_MAX], b" ")
    body += _text(_AFFECTED_INSTANCE, request.sop_instance_uid, b"\0")
    return _HEADER.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def encode_response_pdus(context_id: int, command: bytes, peer_pdu_max_bytes: int) -> bytes:
    """`command` as P-DATA-TF PDUs of one PDV each, none longer than the peer receives (PS3.8 9.3.5, Annex E)."""
    piece_max = max(peer_pdu_max_bytes - 6, 16) if peer_pdu_max_bytes else len(command)
    pdus = bytearray()
    for offset in range(0, len(command), piece_max):
        piece = command[offset : offset + piece_max]
        last = offset + piece_max >= len(command)
        pdus += struct.pack(">BBIIBB", 0x04, 0, len(piece) + 6, len(piece) + 2, context_id, 0x03 if last else 0x01)
        pdus += piece
    return bytes(pdus)


_HEADER = struct.Struct("<HHI")
_AFFECTED_CLASS = 0x0002
_REQUESTED_CLASS = 0x0003
_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_RESPONDED_TO = 0x0120
_DATASET_TYPE = 0x0800
_STATUS = 0x0900
_COMMENT = 0x0902
_AFFECTED_INSTANCE = 0x1000
_REQUESTED_INSTANCE = 0x1001
_READ = frozenset(
    (_AFFECTED_CLASS, _REQUESTED_CLASS, _FIELD, _MESSAGE_ID, _DATASET_TYPE, _AFFECTED_INSTANCE, _REQUESTED_INSTANCE)
)


def _number(values: dict[int, bytes], element: int, default: int) -> int:
    value = values.get(element)
    return default if value is None else int.from_bytes(value[:2], "little")


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def _short(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _text(element: int, value: str, padding: bytes) -> bytes:
    encoded = value.encode("ascii", "replace")
    if not encoded:
        return b""
    if len(encoded) % 2:
        encoded += padding
    return _HEADER.pack(0, element, len(encoded)) + encoded
