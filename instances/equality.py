"""Whether two data sets say the same, element by element.

Senders re-encode on the way: lengths change form, values lose padding, byte order and value representations change, and
pixels may come in another lossless syntax. None of it is other content. Compared are the elements of all levels, in
whatever order they stand; not compared are group lengths, group 2, (FFFC,FFFC), padding behind values, and how a length
or a value representation is written. When in doubt the answer is no: a difference only ever adds a version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from instances.dictionary import dictionary_vr
from instances.elements import (
    DATASET_TRAILING_PADDING,
    DEPTH_MAX,
    EXTENDED_OFFSET_TABLE,
    ITEM,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Buffer,
    Element,
    WalkError,
    looks_like_items,
    read_header,
    sequence_extent,
    sniffed,
    walk,
)
from instances.inflate import inflate
from instances.syntax import LOSSLESS, NATIVE, TURNED_TO_RGB, Encoding, encoding_of
from runtime.errors import Unfileable

Decode = Callable[[Buffer, str], Buffer]
"""Gives the samples of a compressed data set (bytes, transfer syntax) as a native Pixel Data value, little endian,
colours by pixel. It may raise whatever it raises; `equivalent` does not catch it."""

_PHOTOMETRIC_INTERPRETATION = 0x00280004
_PLANAR_CONFIGURATION = 0x00280006
_EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
#: What a lossless transcode may change beside Pixel Data: the samples are compared instead.
_SAMPLE_ATTRIBUTES: Final = frozenset(
    {_PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION, EXTENDED_OFFSET_TABLE, _EXTENDED_OFFSET_TABLE_LENGTHS}
)
#: Bytes that change places together when the byte order does (PS3.5 7.3).
WORD_BYTES: Final = {
    **dict.fromkeys((b"US", b"SS", b"AT", b"OW"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
#: Text, where padding behind each value, or behind the only one, does not count (PS3.5 6.2).
_TEXT: Final = frozenset((b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"PN", b"SH", b"TM", b"UC", b"UI"))
_TEXT_OF_ONE_VALUE: Final = frozenset((b"LT", b"ST", b"UT", b"UR"))
_TEXT_BYTES_MAX: Final = 1 << 20


class _Level(NamedTuple):
    """One data set or item: elements between two offsets."""

    view: memoryview
    encoding: Encoding
    start: int
    end: int


def equivalent(a: Buffer, a_syntax: str, b: Buffer, b_syntax: str, *, decode: Decode) -> bool:
    """Whether data sets `a` and `b`, each written in its transfer syntax without group 2, have equal content.

    `decode` is asked only where compressed pixels differ and both syntaxes are lossless. A data set that cannot be
    walked equals nothing but its own bytes.
    """
    if a_syntax == b_syntax and memoryview(a) == memoryview(b):
        return True
    try:
        comparison = _Comparison(_level(a, a_syntax), _level(b, b_syntax))
        if not comparison.equal():
            return False
    except (WalkError, Unfileable):
        return False
    if not comparison.pixels_differ:
        return True
    if not {a_syntax, b_syntax} <= LOSSLESS | NATIVE:
        return False
    if _native_photometric(comparison.photometric[0], a_syntax) != _native_photometric(
        comparison.photometric[1], b_syntax
    ):
        return False
    return _trimmed_pixels(decode(a, a_syntax)) == _trimmed_pixels(decode(b, b_syntax))


def _level(dataset: Buffer, transfer_syntax: str) -> _Level:
    encoding = encoding_of(transfer_syntax)
    view = memoryview(inflate(dataset).content if encoding.deflated else dataset)
    return _Level(view, sniffed(view, 0, len(view), encoding), 0, len(view))


def _trimmed_pixels(value: Buffer) -> str:
    """A digest of the samples; trailing zeros may be padding."""
    view = memoryview(value)
    while len(view) and view[-1] == 0:
        view = view[:-1]
    return hashlib.sha256(view).hexdigest()


class _Comparison:
    """Two data sets side by side, level by level; nothing recurses."""

    def __init__(self, a: _Level, b: _Level) -> None:
        self._pairs: list[tuple[int, _Level, _Level]] = [(0, a, b)]
        #: Pixel Data is compressed on a side and not equal as it stands.
        self.pixels_differ = False
        #: Photometric Interpretation of each side.
        self.photometric = ("", "")
        self._attributes_differ = False

    def equal(self) -> bool:
        while self._pairs:
            depth, a, b = self._pairs.pop()
            if depth > DEPTH_MAX or not self._levels_equal(depth, a, b):
                return False
        return self.pixels_differ or not self._attributes_differ

    def _levels_equal(self, depth: int, a: _Level, b: _Level) -> bool:
        a_elements, a_rest = _by_tag(a, depth)
        b_elements, b_rest = _by_tag(b, depth)
        if a_rest != b_rest:
            return False
        if depth == 0:
            self.photometric = _photometric(a, a_elements), _photometric(b, b_elements)
            for tag in a_elements.keys() ^ b_elements.keys():
                if tag in _SAMPLE_ATTRIBUTES:
                    self._attributes_differ = True
                    a_elements.pop(tag, None)
                    b_elements.pop(tag, None)
        if a_elements.keys() != b_elements.keys():
            return False
        return all(self._tag_equal(depth, tag, a, a_elements[tag], b, b_elements[tag]) for tag in a_elements)

    def _tag_equal(self, depth: int, tag: int, a: _Level, of_a: list[Element], b: _Level, of_b: list[Element]) -> bool:
        if len(of_a) != len(of_b):
            return False
        for x, y in zip(of_a, of_b, strict=True):
            if self._element_equal(depth, a, x, b, y):
                continue
            if depth or (tag not in _SAMPLE_ATTRIBUTES and tag != PIXEL_DATA):
                return False
            if tag != PIXEL_DATA:
                self._attributes_differ = True
            elif x.undefined or y.undefined:
                self.pixels_differ = True
            else:
                return False
        return True

    def _element_equal(self, depth: int, a: _Level, x: Element, b: _Level, y: Element) -> bool:
        if x.tag == PIXEL_DATA and (x.undefined or y.undefined):
            return x.undefined and y.undefined and _fragments(a, x) == _fragments(b, y)
        if b"SQ" in (x.vr, y.vr) or x.undefined or y.undefined:
            return self._sequences_equal(depth, a, x, b, y)
        if _values_equal(a, x, b, y):
            return True
        if _is_sequence(a, x) and _is_sequence(b, y):
            return self._sequences_equal(depth, a, x, b, y)
        return False

    def _sequences_equal(self, depth: int, a: _Level, x: Element, b: _Level, y: Element) -> bool:
        a_items, b_items = list(_items(a, x)), list(_items(b, y))
        if len(a_items) != len(b_items):
            return False
        self._pairs += [(depth + 1, p, q) for p, q in zip(a_items, b_items, strict=True)]
        return True


def _native_photometric(declared: str, transfer_syntax: str) -> str:
    """What the decoded samples are; some codestreams give back the colours that they turned (PS3.5 8.2)."""
    return "RGB" if declared.startswith("YBR") and transfer_syntax in TURNED_TO_RGB else declared


def _photometric(level: _Level, elements: dict[int, list[Element]]) -> str:
    found = elements.get(_PHOTOMETRIC_INTERPRETATION)
    return bytes(level.view[found[0].value_offset : found[0].value_end]).decode("latin-1").strip("\0 ") if found else ""


def _by_tag(level: _Level, depth: int) -> tuple[dict[int, list[Element]], bytes]:
    """What counts of a level: elements by tag, and the few bytes behind the last one, if they are more than zeros."""
    found: dict[int, list[Element]] = {}
    end = level.start
    for element in walk(level.view, level.encoding, level.start, level.end, depth_max=DEPTH_MAX - depth):
        tag, end = element.tag, element.end
        if tag & 0xFFFF == 0 or tag == DATASET_TRAILING_PADDING or tag >> 16 == 2:
            continue
        found.setdefault(tag, []).append(element)
    return found, bytes(level.view[end : level.end]).rstrip(b"\0")


def _items(level: _Level, element: Element) -> Iterator[_Level]:
    """The items of a sequence; in an element that says UN they may be implicit (PS3.5 6.2.2)."""
    pos, end, view = element.value_offset, element.value_end, level.view
    header_encoding = level.encoding.as_implicit()
    while pos + 8 <= end:
        tag, _, value, length = read_header(view, pos, end, header_encoding)
        if tag != ITEM:
            raise WalkError(pos, tag)
        encoding = sniffed(view, value, end, level.encoding) if level.encoding.explicit else level.encoding
        if length == UNDEFINED:
            item_end, pos = _undefined_item(view, pos, end, encoding)
        else:
            item_end = pos = value + length
        if pos > end:
            raise WalkError(value, tag)
        yield _Level(view, encoding, value, item_end)


def _undefined_item(view: memoryview, pos: int, end: int, encoding: Encoding) -> tuple[int, int]:
    """(end of the content, begin of what follows) of the item of undefined length at `pos`."""
    at = pos + 8
    while at + 8 <= end:
        tag, vr, value, length = read_header(view, at, end, encoding)
        if tag >> 16 == 0xFFFE:
            return at, value
        at = value + length if length != UNDEFINED else sequence_extent(view, value, end, encoding, tag=tag, vr=vr)[1]
    raise WalkError(pos)


def _fragments(level: _Level, element: Element) -> list[bytes]:
    """Fragments of compressed pixels without their offset table; it follows from them."""
    pos, contents = element.value_offset, []
    while pos + 8 <= element.value_end:
        tag, _, value, length = read_header(level.view, pos, element.value_end, level.encoding.as_implicit())
        if tag in (SEQUENCE_DELIMITATION, 0):
            break
        contents.append(hashlib.sha256(level.view[value : value + length]).digest())
        pos = value + length
    return contents[1:]


def _is_sequence(level: _Level, element: Element) -> bool:
    return looks_like_items(level.view, element.value_offset, element.value_end, element.vr, level.encoding)


def _values_equal(a: _Level, x: Element, b: _Level, y: Element) -> bool:
    vr = next((e.vr for e in (x, y) if e.vr not in (b"", b"UN")), b"") or dictionary_vr(x.tag)
    p, q = a.view[x.value_offset : x.value_end], b.view[y.value_offset : y.value_end]
    if a.encoding.little_endian != b.encoding.little_endian and vr in WORD_BYTES:
        big, little = (q, p) if a.encoding.little_endian else (p, q)
        return any(_same_binary(_swapped(big, word), little) for word in {WORD_BYTES[vr], _pixel_word(x, vr)})
    if p == q:
        return True
    if vr in _TEXT and max(len(p), len(q)) < _TEXT_BYTES_MAX:
        return _trimmed(p) == _trimmed(q)
    if vr in _TEXT_OF_ONE_VALUE:
        return bytes(p).rstrip(b" \0") == bytes(q).rstrip(b" \0")
    return _same_binary(p, q)


def _pixel_word(element: Element, vr: bytes) -> int:
    """Some write samples of 32 bits in OW as words of four bytes when they turn the byte order."""
    return 4 if element.tag == PIXEL_DATA else WORD_BYTES[vr]


def _swapped(value: memoryview, word: int) -> memoryview:
    whole = len(value) - len(value) % word
    swapped = np.frombuffer(value[:whole], f"u{word}").byteswap().tobytes()
    return memoryview(swapped + bytes(value[whole:]))


def _same_binary(p: memoryview, q: memoryview) -> bool:
    """Equal, or equal but for one byte of padding."""
    if len(p) == len(q):
        return p == q
    short, long = (p, q) if len(p) < len(q) else (q, p)
    return len(long) - len(short) == 1 and long[-1] == 0 and long[:-1] == short


def _trimmed(value: memoryview) -> bytes:
    """A text without trailing spaces and nulls of each of its values."""
    return b"\\".join(part.rstrip(b" \0") for part in bytes(value).split(b"\\"))
