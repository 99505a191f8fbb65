"""Any data set as Explicit VR Little Endian, and edits of its top level; compressed Pixel Data stays as it is.

Implicit data sets get their value representations from the data dictionary (PS3.6, as pydicom ships it); private
elements and unknown ones become UN (PS3.5 6.2.2). Byte order is turned by value representation. Group lengths and data
set trailing padding, which would be wrong or pointless afterwards, are left out. Nothing recurses.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from instances.dictionary import US_OR_SS, dictionary_vr
from instances.elements import (
    DATASET_TRAILING_PADDING,
    DEPTH_MAX,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    VR_IS_LONG,
    Buffer,
    Malformed,
    TooDeep,
    Truncated,
    WalkError,
    read_header,
    sequence_extent,
    sniffed,
    walk,
)
from instances.equality import WORD_BYTES
from instances.inflate import inflate
from instances.syntax import EXPLICIT_LE, Encoding, encoding_of
from runtime.errors import Unfileable
from schemas.reasons import QuarantineReason

_BITS_ALLOCATED = 0x00280100
_PIXEL_REPRESENTATION = 0x00280103
_SHORT_LENGTH_MAX = 0xFFFF
_PIECE_ITEM = IMPLICIT[True].pack(ITEM >> 16, ITEM & 0xFFFF, UNDEFINED)
_PIECE_ITEM_END = IMPLICIT[True].pack(ITEM_DELIMITATION >> 16, ITEM_DELIMITATION & 0xFFFF, 0)
_PIECE_SEQUENCE_END = IMPLICIT[True].pack(SEQUENCE_DELIMITATION >> 16, SEQUENCE_DELIMITATION & 0xFFFF, 0)


def reencode(dataset: Buffer, transfer_syntax: str) -> Buffer:
    """`dataset` (without group 2) as Explicit VR Little Endian; itself if it is that already.

    Raises:
        Unfileable: PARSE_FAILED, TOO_DEEP or DECODE_LIMIT; serve the data set as it is stored.
    """
    encoding = encoding_of(transfer_syntax)
    if encoding.deflated:
        dataset = inflate(dataset).content
    view = memoryview(dataset)
    encoding = sniffed(view, 0, len(view), encoding)
    if encoding.explicit and encoding.little_endian:
        return dataset
    try:
        return _Writer(view, encoding).written()
    except TooDeep as error:
        raise Unfileable(QuarantineReason.TOO_DEEP, "sequences are nested beyond the limit") from error
    except WalkError as error:
        raise Unfileable(QuarantineReason.PARSE_FAILED, "the data set cannot be walked to its end") from error


def edited(dataset: Buffer, edits: Mapping[int, bytes]) -> bytes:
    """An Explicit VR LE data set whose top-level elements in `edits` are replaced by whole elements, or dropped (b"").

    New elements are put where their tag belongs. Raises as `reencode`.
    """
    view = memoryview(dataset)
    pending = dict(sorted(edits.items()))
    pieces: list[Buffer] = []
    kept_from = 0
    try:
        for element in walk(view, encoding_of(EXPLICIT_LE)):
            due = [tag for tag in pending if tag <= element.tag]
            if due or element.tag in edits:
                pieces.append(view[kept_from : element.offset])
                pieces += (pending.pop(tag) for tag in due)
                kept_from = element.end if element.tag in edits else element.offset
    except WalkError as error:
        raise Unfileable(QuarantineReason.PARSE_FAILED, "the data set cannot be walked to its end") from error
    return b"".join((*pieces, view[kept_from:], *pending.values()))


def explicit_element(tag: int, vr: bytes, value: Buffer) -> bytes:
    """One element in Explicit VR LE; `value` is of even length already."""
    return _header(tag, vr, len(value)) + bytes(value)


def _header(tag: int, vr: bytes, length: int) -> bytes:
    group, number = tag >> 16, tag & 0xFFFF
    if not VR_IS_LONG.get(vr, True):
        if length <= _SHORT_LENGTH_MAX:
            return EXPLICIT[True].pack(group, number, vr, length)
        vr = b"UN"  # PS3.5 6.2.2: too long for its value representation
    return EXPLICIT[True].pack(group, number, vr, 0) + length.to_bytes(4, "little")


class _Writer:
    """Writes one data set anew. Sequences and items get undefined lengths, so nothing is written twice."""

    def __init__(self, view: memoryview, encoding: Encoding) -> None:
        self._view = view
        self._encoding = encoding
        self._pieces: list[Buffer] = []
        #: (end offset or None, what to write at the end, encoding) of the open levels; items and sequences alternate.
        self._levels: list[tuple[int | None, bytes, Encoding]] = [(len(view), b"", encoding)]
        self._signed = False
        self._bits_allocated = 16
        self._read_pixel_attributes()

    def written(self) -> bytes:
        pos = 0
        while self._levels:
            end, closing, encoding = self._levels[-1]
            if end is not None and (pos >= end or (len(self._levels) == 1 and pos + 8 > end)):
                if pos > end:
                    raise Malformed(pos)
                self._pieces.append(closing)
                self._levels.pop()
                continue
            if pos + 8 > len(self._view):
                raise Truncated(pos)
            pos = self._item(pos, encoding) if len(self._levels) % 2 == 0 else self._element(pos, encoding)
        return b"".join(self._pieces)

    def _read_pixel_attributes(self) -> None:
        """Value representations of some elements depend on these two (PS3.5 A.1, PS3.3 C.7.6.3)."""
        order = "little" if self._encoding.little_endian else "big"
        for element in walk(self._view, self._encoding):
            value = int.from_bytes(self._view[element.value_offset : element.value_offset + 2], order)  # type: ignore[arg-type]
            if element.tag == _BITS_ALLOCATED:
                self._bits_allocated = value
            elif element.tag == _PIXEL_REPRESENTATION:
                self._signed = value == 1
                return

    def _item(self, pos: int, encoding: Encoding) -> int:
        tag, _, value, length = read_header(self._view, pos, len(self._view), encoding.as_implicit())
        if tag == SEQUENCE_DELIMITATION:
            self._pieces.append(self._levels.pop()[1])
            return value
        if tag != ITEM:
            raise Malformed(pos, tag)
        if encoding.explicit:
            encoding = sniffed(self._view, value, len(self._view), encoding)
        self._pieces.append(_PIECE_ITEM)
        self._levels.append((None if length == UNDEFINED else value + length, _PIECE_ITEM_END, encoding))
        return value

    def _element(self, pos: int, encoding: Encoding) -> int:
        tag, vr, value, length = read_header(self._view, pos, len(self._view), encoding)
        if tag >> 16 == 0xFFFE:
            if tag == ITEM_DELIMITATION and len(self._levels) > 1:
                self._pieces.append(self._levels.pop()[1])
                return value
            raise Malformed(pos, tag)
        if tag == PIXEL_DATA and length == UNDEFINED:
            return self._copy_encapsulated(pos, tag, vr, value, encoding)
        vr = vr or self._vr(tag)
        if vr == b"SQ" or length == UNDEFINED:
            return self._open_sequence(tag, value, length, encoding)
        after = value + length
        if after > len(self._view):
            raise Truncated(pos, tag)
        if tag & 0xFFFF and tag != DATASET_TRAILING_PADDING:
            content = self._little(tag, self._view[value:after], vr, encoding)
            self._pieces += (_header(tag, vr, len(content)), content)
        return after

    def _open_sequence(self, tag: int, value: int, length: int, encoding: Encoding) -> int:
        if len(self._levels) // 2 >= DEPTH_MAX:
            raise TooDeep(value, tag)
        self._pieces.append(_header(tag, b"SQ", UNDEFINED))
        self._levels.append((None if length == UNDEFINED else value + length, _PIECE_SEQUENCE_END, encoding))
        return value

    def _copy_encapsulated(self, pos: int, tag: int, vr: bytes, value: int, encoding: Encoding) -> int:
        """Items of compressed streams are written the same everywhere (PS3.5 A.4): little endian."""
        _, after = sequence_extent(self._view, value, len(self._view), encoding, tag=tag, vr=b"OB")
        self._pieces += (_header(tag, b"OB", UNDEFINED), self._view[value:after])
        return after

    def _little(self, tag: int, value: memoryview, vr: bytes, encoding: Encoding) -> Buffer:
        word = WORD_BYTES.get(vr)
        if tag == PIXEL_DATA and vr == b"OW":
            word = max(2, self._bits_allocated // 8)  # writers turn whole samples
        if encoding.little_endian or word not in (2, 4, 8) or len(value) % word:
            return value
        return np.frombuffer(value, f"u{word}").byteswap().tobytes()

    def _vr(self, tag: int) -> bytes:
        if tag == PIXEL_DATA:
            return b"OW"  # PS3.5 A.1: implicit native Pixel Data is OW, which stays true in little endian
        vr = dictionary_vr(tag)
        if vr == US_OR_SS:
            return b"SS" if self._signed else b"US"
        return vr
