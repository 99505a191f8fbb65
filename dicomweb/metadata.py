"""A stored instance's head in the DICOM JSON Model (PS3.18 F.2), straight from its bytes.

One walk over the elements, no data set object in between: a study of a thousand slices is asked for at once. Values
above `INLINE_MAX_BYTES` become BulkDataURI; what cannot be read is left out, because readers serve what is there.
Groups 0000 and 0002 and group lengths never appear.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from struct import iter_unpack
from typing import Final

from pydicom.datadict import dictionary_VR

from dicomweb.attributes import number, person_name
from instances.character_set import UNDECLARED, codecs_of, decode
from instances.elements import (
    DATASET_TRAILING_PADDING,
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    Buffer,
    Element,
    WalkError,
    read_header,
    sniffed,
    walk,
)
from instances.inflate import inflate
from instances.syntax import Encoding, encoding_of
from runtime.errors import Unfileable

INLINE_MAX_BYTES: Final = 1024
DEPTH_MAX: Final = 32
_CHARACTER_SET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103
_NUMBERS: Final = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "UL": "I", "US": "H", "SV": "q", "UV": "Q"}
_UNITS: Final = {"OB": 1, "UN": 1, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
_ONE_VALUE: Final = frozenset({"LT", "ST", "UT", "UR"})
#: What files without a declared character set hold, whatever they should.
_CHARACTER_SET_MATTERS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
_AMBIGUOUS: Final = {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}

BulkDataUri = Callable[[str], str]
"""Gives the address of a bulk value from its path: ``00420011``, or ``00081140/0/00081155`` inside sequences."""
Object = dict[str, object]


@dataclass(slots=True, kw_only=True)
class _Level:
    """What the elements of one level, and those below it, are read by."""

    buffer: Buffer
    encoding: Encoding
    path: str = ""
    depth: int = 0
    codecs: tuple[str, ...] = UNDECLARED
    signed: bool = False


def dataset_json(dataset: Buffer, transfer_syntax: str, bulk_data_uri: BulkDataUri) -> Object:
    """The elements of `dataset`, or of its beginning, as a DICOM JSON Model object. Never raises for odd bytes."""
    level = _top(dataset, transfer_syntax)
    return _object(_elements(level, walk(level.buffer, level.encoding), bulk_data_uri))


def find_bulk(dataset: Buffer, transfer_syntax: str, path: str) -> tuple[Buffer, str] | None:
    """The bytes of the value at `path` in little endian and its VR; None if there is no such binary value."""
    level = _top(dataset, transfer_syntax)
    elements = walk(level.buffer, level.encoding)
    steps = path.split("/")
    for step, index in zip(steps[0::2], [*steps[1::2], ""], strict=False):
        element = _first(elements, int(step, 16))
        if element is None:
            return None
        if index == "":
            vr = vr_of(element, signed=False)
            return (_little(level, element, vr), vr) if vr in _UNITS else None
        below = next((one for n, one in enumerate(_items(level, element)) if n == int(index)), None)
        if below is None:
            return None
        level, elements = below
    return None


def encoded(body: Object) -> bytes:
    """An object of the model as JSON text in UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def vr_of(element: Element, *, signed: bool) -> str:
    """The VR an element is given in: the one written, or the dictionary's where none or UN is."""
    if element.vr not in (b"", b"UN", b"??"):
        return element.vr.decode("ascii", "replace")
    if element.tag >> 16 & 1:
        return "LO" if 0x10 <= element.tag & 0xFFFF <= 0xFF else "UN"
    try:
        vr = dictionary_VR(element.tag)
    except KeyError:
        return "UN"
    if vr == "US or SS" and signed:
        return "SS"
    return _AMBIGUOUS.get(vr, vr)


def _top(dataset: Buffer, transfer_syntax: str) -> _Level:
    encoding = encoding_of(transfer_syntax)
    if encoding.deflated:
        try:
            dataset = inflate(dataset).content
        except Unfileable:
            dataset = b""
    return _Level(buffer=dataset, encoding=sniffed(dataset, 0, len(dataset), encoding))


def _object(elements: Iterator[tuple[str, Object]]) -> Object:
    """In the order of tags; of a tag that is there twice, the first."""
    found: Object = {}
    for tag, element in elements:
        found.setdefault(tag, element)
    return dict(sorted(found.items(), key=itemgetter(0)))


def _first(elements: Iterator[Element], tag: int) -> Element | None:
    try:
        return next((element for element in elements if element.tag == tag), None)
    except WalkError:
        return None


def _elements(level: _Level, elements: Iterator[Element], uri: BulkDataUri) -> Iterator[tuple[str, Object]]:
    try:
        for element in elements:
            if element.tag == ITEM_DELIMITATION:
                return
            if element.tag >> 16 in (0, 2) or not element.tag & 0xFFFF or element.tag == DATASET_TRAILING_PADDING:
                continue
            if element.tag in _PIXELS and not level.depth:
                continue
            yield f"{element.tag:08X}", _element(level, element, uri)
    except WalkError:
        return


def _element(level: _Level, element: Element, uri: BulkDataUri) -> Object:
    vr = vr_of(element, signed=level.signed)
    if vr == "SQ" or (element.undefined and vr not in ("OB", "OW")):
        return _sequence(level, element, uri)
    if vr in _UNITS:
        return _binary(level, element, vr, uri)
    raw = bytes(level.buffer[element.value_offset : element.value_end])
    if element.tag == _CHARACTER_SET:
        level.codecs = codecs_of(raw.decode("ascii", "replace"))
        return {"vr": "CS", "Value": ["ISO_IR 192"]}
    if element.tag == _PIXEL_REPRESENTATION:
        level.signed = raw[:2] in (b"\x01\x00", b"\x00\x01")
    values = _values(level, vr, raw)
    return {"vr": vr, "Value": values} if any(value is not None for value in values) else {"vr": vr}


def _values(level: _Level, vr: str, raw: bytes) -> list[object]:
    if vr in _NUMBERS:
        return _numbers(vr, raw, little=level.encoding.little_endian)
    if vr == "AT":
        words = [int(word) for word in _numbers("US", raw, little=level.encoding.little_endian)]  # type: ignore[call-overload]
        return [f"{group:04X}{part:04X}" for group, part in zip(words[0::2], words[1::2], strict=False)]
    text, _ = decode(raw, level.codecs if vr in _CHARACTER_SET_MATTERS else UNDECLARED)
    if not text:
        return []
    if vr in _ONE_VALUE:
        return [text]
    return [_text_value(vr, one) for one in text.split("\\")]


def _text_value(vr: str, text: str) -> object:
    text = text.strip("\0 ")
    if not text:
        return None
    if vr == "PN":
        return person_name(text)
    return number(text) if vr in ("IS", "DS") else text


def _numbers(vr: str, raw: bytes, *, little: bool) -> list[object]:
    code = _NUMBERS[vr]
    size = {"h": 2, "H": 2, "i": 4, "I": 4, "f": 4}.get(code, 8)
    values = [value for (value,) in iter_unpack(("<" if little else ">") + code, raw[: len(raw) // size * size])]
    return [str(value) if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def _binary(level: _Level, element: Element, vr: str, uri: BulkDataUri) -> Object:
    size_bytes = element.value_end - element.value_offset
    if size_bytes == 0:
        return {"vr": vr}
    if size_bytes > INLINE_MAX_BYTES:
        return {"vr": vr, "BulkDataURI": uri(f"{level.path}{element.tag:08X}")}
    return {"vr": vr, "InlineBinary": base64.b64encode(_little(level, element, vr)).decode()}


def _little(level: _Level, element: Element, vr: str) -> bytes:
    raw = bytes(level.buffer[element.value_offset : element.value_end])
    unit = _UNITS[vr]
    if level.encoding.little_endian or unit == 1:
        return raw
    swapped = bytearray(raw)
    for byte in range(unit):
        swapped[byte : len(raw) // unit * unit : unit] = raw[unit - 1 - byte : len(raw) // unit * unit : unit]
    return bytes(swapped)


def _sequence(level: _Level, element: Element, uri: BulkDataUri) -> Object:
    if level.depth >= DEPTH_MAX:
        return {"vr": "SQ"}
    items = [_object(_elements(below, elements, uri)) for below, elements in _items(level, element)]
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _items(level: _Level, element: Element) -> Iterator[tuple[_Level, Iterator[Element]]]:
    """The items of a sequence, each with the walk over its elements."""
    position, end, index = element.value_offset, element.value_end, 0
    encoding = level.encoding.as_implicit() if element.vr == b"UN" else level.encoding
    while position + 8 <= end:
        tag, _, begin, length = read_header(level.buffer, position, end, level.encoding.as_implicit())
        if tag != ITEM:
            return
        undefined = length == 0xFFFFFFFF
        below = _Level(
            buffer=level.buffer,
            encoding=sniffed(level.buffer, begin, end, encoding),
            path=f"{level.path}{element.tag:08X}/{index}/",
            depth=level.depth + 1,
            codecs=level.codecs,
            signed=level.signed,
        )
        stop = end if undefined else min(begin + length, end)
        yield below, walk(level.buffer, below.encoding, begin, stop)
        position = _item_end(below, begin, end) if undefined else stop
        index += 1


def _item_end(level: _Level, begin: int, end: int) -> int:
    try:
        for element in walk(level.buffer, level.encoding, begin, end):
            if element.tag == ITEM_DELIMITATION:
                return element.end
    except WalkError:
        pass
    return end
