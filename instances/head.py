"""The head of a data set: the three UIDs that route an instance, found in its first kilobytes."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from typing import Final

from instances.elements import EXPLICIT, UNDEFINED, VR_IS_LONG, Buffer, WalkError, read_header, sequence_extent, sniffed
from instances.syntax import Encoding, encoding_of
from runtime.errors import Rejected
from schemas.reasons import RejectReason

#: How much of a data set's beginning is worth passing to `read_head`.
HEAD_BYTES: Final = 65536

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What routes an instance. Values are as written, without padding; absent ones are empty."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str


def read_head(prefix: Buffer, transfer_syntax: str) -> Head:
    """The UIDs in `prefix`, the beginning of a data set without group 2 (`HEAD_BYTES` of it is enough).

    The Study Instance UID is empty if the data set has none or it does not lie within the prefix.

    Raises:
        Rejected: HEAD_UNREADABLE; there is no SOP Instance UID to be found. Refuse the instance.
    """
    encoding = encoding_of(transfer_syntax)
    if encoding.deflated:
        prefix = _inflated(prefix)
    found: dict[int, str] = {}
    with contextlib.suppress(WalkError):  # what was found before the break still counts
        _find(prefix, sniffed(prefix, 0, len(prefix), encoding), found)
    if not found.get(_SOP_INSTANCE_UID):
        raise Rejected(RejectReason.HEAD_UNREADABLE, "no SOP Instance UID in the head of the data set")
    return Head(
        sop_class_uid=found.get(_SOP_CLASS_UID, ""),
        sop_instance_uid=found[_SOP_INSTANCE_UID],
        study_instance_uid=found.get(_STUDY_INSTANCE_UID, ""),
    )


def uid_text(value: Buffer) -> str:
    """A UI value as text, without its padding (PS3.5 6.2, 9.4). Never fails: what is no UID stays visible as such."""
    return bytes(value).decode("latin-1").strip("\0 ")


def _find(prefix: Buffer, encoding: Encoding, found: dict[int, str]) -> None:
    limit, pos = len(prefix), 0
    unpack, explicit = EXPLICIT[encoding.little_endian].unpack_from, encoding.explicit
    while pos + 8 <= limit:
        group, number, vr, length = unpack(prefix, pos)
        if explicit and group != 0xFFFE and VR_IS_LONG.get(vr) is False:  # nearly all elements: a call is saved
            tag, value = group << 16 | number, pos + 8
        else:
            tag, vr, value, length = read_header(prefix, pos, limit, encoding)
        if tag >= _STUDY_INSTANCE_UID:
            if tag == _STUDY_INSTANCE_UID and value + length <= limit:
                found[tag] = uid_text(prefix[value : value + length])
            return
        if length == UNDEFINED:
            _, pos = sequence_extent(prefix, value, limit, encoding, tag=tag, vr=vr)
            continue
        pos = value + length
        if tag in (_SOP_INSTANCE_UID, _SOP_CLASS_UID) and pos <= limit:
            found.setdefault(tag, uid_text(prefix[value:pos]))  # of an element that is there twice, the first counts


def _inflated(prefix: Buffer) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(prefix, HEAD_BYTES)
    except zlib.error:
        return b""
