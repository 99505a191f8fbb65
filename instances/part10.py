"""Part 10 files: the header we write in front of received bytes, and the tolerant reading of anyone's (PS3.10 7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from instances.elements import EXPLICIT, IMPLICIT, VR_IS_LONG, Buffer, WalkError, read_header, sniffed
from instances.head import uid_text
from instances.syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Encoding
from runtime.errors import Rejected
from schemas.reasons import RejectReason

IMPLEMENTATION_CLASS_UID: Final = "2.25.42269037514177567742118694748615752474"
IMPLEMENTATION_VERSION_NAME: Final = "SANSFILM_0_1"

_PREFIX = bytes(128) + b"DICM"
_META_VERSION = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
_SOP_CLASS_UID = 0x00020002
_SOP_INSTANCE_UID = 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What the file meta information says; empty where it says nothing."""

    #: As written, or guessed from the data set if it is not.
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    #: Where the data set begins in the file.
    dataset_offset: int


def file_header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, calling_ae: str = "") -> bytes:
    """Preamble, prefix and group 2: what makes a Part-10 file of the data set that follows it.

    `calling_ae` becomes Sending Application Entity Title (0002,0017).
    """
    elements = b"".join(
        (
            _META_VERSION,
            _element(0x0002, b"UI", sop_class_uid, b"\0"),
            _element(0x0003, b"UI", sop_instance_uid, b"\0"),
            _element(0x0010, b"UI", transfer_syntax, b"\0"),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
            _element(0x0017, b"AE", calling_ae, b" ") if calling_ae else b"",
        )
    )
    group_length = EXPLICIT[True].pack(0x0002, 0x0000, b"UL", 4) + len(elements).to_bytes(4, "little")
    return _PREFIX + group_length + elements


def split(file: Buffer) -> tuple[FileMeta, memoryview]:
    """What the file meta information of `file` says, and a view of the data set behind it.

    A missing preamble, prefix, group 2 or group length is tolerated; the transfer syntax is then guessed.

    Raises:
        Rejected: HEAD_UNREADABLE; this is no DICOM file.
    """
    view = memoryview(file)
    found: dict[int, str] = {}
    try:
        start = _read_group_2(view, _meta_offset(view), found)
    except WalkError as error:
        raise Rejected(RejectReason.HEAD_UNREADABLE, "the file meta information cannot be read") from error
    syntax = found.get(_TRANSFER_SYNTAX_UID) or _guessed_syntax(view, start)
    meta = FileMeta(
        transfer_syntax=syntax,
        sop_class_uid=found.get(_SOP_CLASS_UID, ""),
        sop_instance_uid=found.get(_SOP_INSTANCE_UID, ""),
        dataset_offset=start,
    )
    return meta, view[start:]


def _element(number: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += padding
    return EXPLICIT[True].pack(0x0002, number, vr, len(value)) + value


def _meta_offset(view: memoryview) -> int:
    if bytes(view[128:132]) == b"DICM":
        return 132
    return 4 if bytes(view[:4]) == b"DICM" else 0


def _read_group_2(view: memoryview, pos: int, found: dict[int, str]) -> int:
    limit = len(view)
    encoding = sniffed(view, pos, limit, Encoding())
    while pos + 8 <= limit and view[pos] == 2 and view[pos + 1] == 0:
        tag, _, value, length = read_header(view, pos, limit, encoding)
        after = value + length
        if after > limit:
            raise WalkError(pos, tag)
        if tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID):
            found[tag] = uid_text(view[value : min(after, value + 256)])
        pos = after
    return pos


def _guessed_syntax(view: memoryview, pos: int) -> str:
    """The native syntax that the first element fits; groups of standard attributes begin below 0100 hex."""
    if len(view) < pos + 8:
        raise Rejected(RejectReason.HEAD_UNREADABLE, "there is no data set")
    explicit = bytes(view[pos + 4 : pos + 6]) in VR_IS_LONG
    for little, syntax in ((True, EXPLICIT_LE if explicit else IMPLICIT_LE), (False, EXPLICIT_BE)):
        group, _, length = IMPLICIT[little].unpack_from(view, pos)
        if 0 < group < 0x100 and (explicit or (little and pos + 8 + length <= len(view))):
            return syntax
    raise Rejected(RejectReason.HEAD_UNREADABLE, "this is no DICOM file")
