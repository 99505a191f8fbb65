"""The walk over a data set's elements: headers and extents only, no value is read, nothing recurses.

Real files depart from their transfer syntax, so what is written decides and the syntax is only the first guess: a
data set or an item that begins without value representations is read as implicit, an unknown value representation in
capitals takes the form its reserved bytes say (PS3.5 6.2.2, 7.1.2), a UN sequence holds implicit items (PS3.5 6.2.2
note on CP-246). Every loop advances by at least eight bytes and every nesting is on an explicit, bounded stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from instances.syntax import Encoding

Buffer = bytes | bytearray | memoryview

DEPTH_MAX: Final = 64
#: Elements and items read in one walk: some seconds of work; no real data set comes near.
ELEMENTS_MAX: Final = 2_000_000
UNDEFINED: Final = 0xFFFFFFFF

ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
DATASET_TRAILING_PADDING: Final = 0xFFFCFFFC
EXTENDED_OFFSET_TABLE: Final = 0x7FE00001
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
PIXEL_DATA: Final = 0x7FE00010

_LONG_FORM = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT_FORM = (
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"),
    *(b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
)
#: Value representation -> whether its length has 32 bits (PS3.5 Table 7.1-1).
VR_IS_LONG: Final = {**dict.fromkeys(_LONG_FORM, True), **dict.fromkeys(_SHORT_FORM, False)}

EXPLICIT: Final = {True: Struct("<HH2sH"), False: Struct(">HH2sH")}
IMPLICIT: Final = {True: Struct("<HHL"), False: Struct(">HHL")}
_ITEM_TAG = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}
LENGTH: Final = {True: Struct("<L"), False: Struct(">L")}


class WalkError(ValueError):
    """The bytes cannot be walked any further. `offset` is where the element begins that could not be passed."""

    def __init__(self, offset: int, tag: int = 0) -> None:
        super().__init__(f"{type(self).__name__} at byte {offset}")
        self.offset = offset
        self.tag = tag


class Truncated(WalkError):
    """A header or a value runs past the end."""


class Malformed(WalkError):
    """A sequence does not consist of items, or a delimiter stands where none belongs."""


class TooDeep(WalkError):
    """Sequences are nested beyond the limit."""


class TooMany(WalkError):
    """There are more elements than the limit."""


class Element(NamedTuple):
    """Where one element lies. Of an undefined length, `value_end` is before the delimiter and `end` after it."""

    tag: int
    #: Two letters; empty where none is written.
    vr: bytes
    offset: int
    value_offset: int
    value_end: int
    end: int
    undefined: bool


def walk(
    buffer: Buffer, encoding: Encoding, start: int = 0, end: int | None = None, *, depth_max: int = DEPTH_MAX
) -> Iterator[Element]:
    """The elements of one level, in the order they are written; sequences are passed over as a whole.

    `encoding` is what `sniffed` gives for this level. Fewer than eight bytes at the end are left for the caller to see.

    Raises:
        WalkError: from the iteration; the elements given before stay valid.
    """
    limit = len(buffer) if end is None else end
    pos, count = start, 0
    unpack, explicit = EXPLICIT[encoding.little_endian].unpack_from, encoding.explicit
    while pos + 8 <= limit:
        group, number, vr, length = unpack(buffer, pos)
        if explicit and group != 0xFFFE and VR_IS_LONG.get(vr) is False:  # nearly all elements: a call is saved
            tag, value = group << 16 | number, pos + 8
        else:
            tag, vr, value, length = read_header(buffer, pos, limit, encoding)
        count += 1
        if count > ELEMENTS_MAX:
            raise TooMany(pos)
        if length == UNDEFINED:
            value_end, after = sequence_extent(buffer, value, limit, encoding, tag=tag, vr=vr, depth_max=depth_max)
            yield Element(tag, vr, pos, value, value_end, after, True)
        else:
            value_end = after = value + length
            if after > limit:
                raise Truncated(pos, tag)
            yield Element(tag, vr, pos, value, value_end, after, False)
        pos = after


def read_header(buffer: Buffer, pos: int, limit: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, value representation (empty if none is written), offset of the value, and length of the element at `pos`.

    There must be eight bytes at `pos`.

    Raises:
        Truncated: the header runs past `limit`.
    """
    little = encoding.little_endian
    if encoding.explicit:
        group, number, vr, length = EXPLICIT[little].unpack_from(buffer, pos)
        is_long = VR_IS_LONG.get(vr)
        if is_long is None:
            is_long = _unknown_is_long(vr, length)
        if group == 0xFFFE:
            is_long = None
        if is_long is False:
            return group << 16 | number, vr, pos + 8, length
        if is_long:
            if pos + 12 > limit:
                raise Truncated(pos, group << 16 | number)
            return group << 16 | number, vr, pos + 12, LENGTH[little].unpack_from(buffer, pos + 8)[0]
    group, number, length = IMPLICIT[little].unpack_from(buffer, pos)
    return group << 16 | number, b"", pos + 8, length


def _unknown_is_long(vr: bytes, field: int) -> bool | None:
    """An unknown value representation has 32 bits of length if its reserved field is zero; None: it is no VR at all."""
    if vr == b"??" or (vr.isalpha() and vr.isupper()):
        return field == 0
    return None


def sniffed(buffer: Buffer, pos: int, limit: int, encoding: Encoding) -> Encoding:
    """`encoding` corrected by what the element at `pos` shows: whether a value representation is written there."""
    if pos + 6 > limit:
        return encoding
    vr = bytes(buffer[pos + 4 : pos + 6])
    if vr in VR_IS_LONG:
        return encoding if encoding.explicit else encoding.as_explicit()
    if encoding.explicit and _unknown_is_long(vr, 0) is None:
        return encoding.as_implicit()
    return encoding


def sequence_extent(
    buffer: Buffer,
    pos: int,
    limit: int,
    encoding: Encoding,
    *,
    tag: int = 0,
    vr: bytes = b"SQ",
    sequence_end: int | None = None,
    depth_max: int = DEPTH_MAX,
) -> tuple[int, int]:
    """Where the sequence of items whose value begins at `pos` ends: before and after its delimiter.

    With `sequence_end` the walk descends into all that is or looks like a sequence, whatever the form of its length:
    this checks structure and depth. Without, the items are passed until the delimiter.

    Raises:
        WalkError: the sequence has no end, is no sequence, or is nested too deep.
    """
    walker = _SequenceWalker(buffer, limit, depth_max, descends=sequence_end is not None)
    return walker.run(pos, _Sequence(encoding, sequence_end, _is_raw(tag, vr)))


def looks_like_items(buffer: Buffer, start: int, end: int, vr: bytes, encoding: Encoding) -> bool:
    """Whether a value that does not say what it is (implicit, or UN) begins like a sequence."""
    return (
        end - start >= 8
        and vr in (b"", b"UN")
        and bytes(buffer[start : start + 4]) == _ITEM_TAG[encoding.little_endian]
    )


def _is_raw(tag: int, vr: bytes) -> bool:
    """Whether items of this element hold a compressed stream instead of elements (PS3.5 A.4)."""
    return vr in (b"OB", b"OW") or (vr != b"SQ" and tag == PIXEL_DATA)


class _Sequence(NamedTuple):
    """A level that consists of items."""

    encoding: Encoding
    end: int | None
    raw: bool


class _Item(NamedTuple):
    """A level that consists of elements."""

    encoding: Encoding
    end: int | None


class _SequenceWalker:
    """The stack machine behind `sequence_extent`."""

    __slots__ = ("buffer", "count", "depth_max", "descends", "limit", "stack")

    def __init__(self, buffer: Buffer, limit: int, depth_max: int, *, descends: bool) -> None:
        self.descends = descends
        self.buffer = buffer
        self.limit = limit
        self.depth_max = depth_max
        self.count = 0
        self.stack: list[_Sequence | _Item] = []

    def run(self, pos: int, sequence: _Sequence) -> tuple[int, int]:
        stack = self.stack
        stack.append(sequence)
        while True:
            level = stack[-1]
            if level.end is not None and pos >= level.end:
                if pos > level.end:
                    raise Malformed(pos)
                stack.pop()
                if not stack:
                    return pos, pos
                continue
            if pos + 8 > self.limit:
                raise Truncated(pos)
            self.count += 1
            if self.count > ELEMENTS_MAX:
                raise TooMany(pos)
            if type(level) is _Item:
                pos = self._pass_element(pos, level)
                continue
            after = self._pass_item(pos, level)  # type: ignore[arg-type]  # the other kind was handled above
            if not stack:
                return pos, after
            pos = after

    def _pass_item(self, pos: int, level: _Sequence) -> int:
        tag, _, value, length = read_header(self.buffer, pos, self.limit, level.encoding.as_implicit())
        if tag == SEQUENCE_DELIMITATION and level.end is None:
            self.stack.pop()
            return value
        if tag != ITEM:
            raise Malformed(pos, tag)
        if level.raw:
            return self._bounded(pos, tag, value, length)
        encoding = level.encoding
        if encoding.explicit:
            encoding = sniffed(self.buffer, value, self.limit, encoding)
        if length != UNDEFINED:
            self._bounded(pos, tag, value, length)
        self.stack.append(_Item(encoding, None if length == UNDEFINED else value + length))
        return value

    def _pass_element(self, pos: int, level: _Item) -> int:
        tag, vr, value, length = read_header(self.buffer, pos, self.limit, level.encoding)
        if tag >> 16 == 0xFFFE:
            if tag == ITEM_DELIMITATION and level.end is None:
                self.stack.pop()
                return value
            raise Malformed(pos, tag)
        if length != UNDEFINED:
            after = self._bounded(pos, tag, value, length)
            if not self.descends or not (
                vr == b"SQ" or looks_like_items(self.buffer, value, after, vr, level.encoding)
            ):
                return after
        if len(self.stack) // 2 >= self.depth_max:
            raise TooDeep(pos, tag)
        end = None if length == UNDEFINED else value + length
        self.stack.append(_Sequence(level.encoding, end, _is_raw(tag, vr)))
        return value

    def _bounded(self, pos: int, tag: int, value: int, length: int) -> int:
        after = value + length
        if length == UNDEFINED or after > self.limit:
            raise Truncated(pos, tag)
        return after
