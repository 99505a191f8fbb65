"""Where the pixels of an instance lie: the Pixel Data element, and in it the frames (PS3.5 8 and A.4).

All offsets count from the first byte of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from instances.elements import DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA, ITEM, PIXEL_DATA, Buffer, Element
from schemas.reasons import WarningCode
from schemas.record import InstanceAttributes

#: More frames than this are not listed one by one.
FRAMES_MAX: Final = 262_144

PIXEL_TAGS: Final = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA})

_ITEM_HEADER = Struct("<HHL")


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """The Pixel Data (or Float or Double Float Pixel Data) element of a data set."""

    #: As written; empty in an implicit data set.
    vr: str
    element_offset: int
    value_offset: int
    #: Encapsulated: all items with their headers, the sequence delimiter excluded.
    value_size_bytes: int
    #: Where the next element begins.
    end_offset: int
    encapsulated: bool
    #: (offset, size) of each frame; encapsulated: of its one fragment's content. Empty if frames are not contiguous,
    #: not aligned to bytes, or do not follow from the attributes.
    frames: tuple[tuple[int, int], ...] = ()
    #: (offset, size) of each fragment's content, the offset table excluded; empty for native pixel data, and if there
    #: are more than `FRAMES_MAX`.
    fragments: tuple[tuple[int, int], ...] = ()
    #: The Basic Offset Table's entries; empty if it is empty or there is none.
    offset_table: tuple[int, ...] = ()


def layout_of(
    dataset: Buffer, element: Element, instance: InstanceAttributes, *, compressed_syntax: bool
) -> tuple[PixelLayout, tuple[WarningCode, ...]]:
    """The layout of `element`, one of `PIXEL_TAGS` in `dataset`, and what is odd about it."""
    if not element.undefined:
        layout, warnings = _native(element, instance)
        if compressed_syntax and element.tag == PIXEL_DATA:
            warnings = (*warnings, WarningCode.ENCAPSULATION_BROKEN)
        return layout, warnings
    layout, sound = _encapsulated(dataset, element, max(1, instance.number_of_frames))
    return layout, () if sound and compressed_syntax else (WarningCode.ENCAPSULATION_BROKEN,)


def native_size_bits(instance: InstanceAttributes, tag: int = PIXEL_DATA) -> int:
    """Bits of one native frame without padding; 0 if the attributes do not say."""
    samples = instance.rows * instance.columns * instance.samples_per_pixel
    if tag == FLOAT_PIXEL_DATA:
        return samples * 32
    if tag == DOUBLE_FLOAT_PIXEL_DATA:
        return samples * 64
    if instance.photometric_interpretation == "YBR_FULL_422" and instance.samples_per_pixel == 3:
        return instance.rows * instance.columns * 2 * instance.bits_allocated
    return samples * instance.bits_allocated


def _native(element: Element, instance: InstanceAttributes) -> tuple[PixelLayout, tuple[WarningCode, ...]]:
    size = element.value_end - element.value_offset
    count = max(1, instance.number_of_frames)
    frame_bits = native_size_bits(instance, element.tag)
    expected = (frame_bits * count + 7) // 8
    matches = expected > 0 and size in (expected, expected + expected % 2)
    frames: tuple[tuple[int, int], ...] = ()
    if matches and count <= FRAMES_MAX and (frame_bits % 8 == 0 or count == 1):
        frame_size = (frame_bits + 7) // 8
        start = element.value_offset
        frames = tuple((start + index * frame_size, frame_size) for index in range(count))
    warnings = () if matches else (WarningCode.PIXEL_LENGTH_MISMATCH,)
    return _layout(element, frames=frames), warnings


def _encapsulated(dataset: Buffer, element: Element, count: int) -> tuple[PixelLayout, bool]:
    """The layout, and whether offset table and fragments agree with each other and with the number of frames."""
    (table_offset, table_size), *fragments = _items(dataset, element) or [(0, 0)]
    if len(fragments) > FRAMES_MAX:
        return _layout(element), True
    if table_offset == 0 or table_size % 4 or not fragments:
        return _layout(element, fragments=tuple(fragments)), False
    entries = (table_size // 4) if table_size // 4 <= FRAMES_MAX else 0
    table = Struct(f"<{entries}L").unpack_from(dataset, table_offset)
    one_each = len(fragments) == count
    layout = _layout(
        element,
        frames=tuple(fragments) if one_each and count <= FRAMES_MAX else (),
        fragments=tuple(fragments),
        offset_table=table,
    )
    first = fragments[0][0]
    starts = {offset - first for offset, _ in fragments}
    return layout, len(fragments) >= count and (not table or (len(table) == count and starts.issuperset(table)))


def _items(dataset: Buffer, element: Element) -> list[tuple[int, int]]:
    """(offset, size) of the content of each item; the walk has shown that they fit. Stops beyond `FRAMES_MAX`."""
    items: list[tuple[int, int]] = []
    pos = element.value_offset
    while pos + 8 <= element.value_end and len(items) <= FRAMES_MAX + 1:
        group, number, size = _ITEM_HEADER.unpack_from(dataset, pos)
        if group << 16 | number != ITEM:
            break
        items.append((pos + 8, size))
        pos += 8 + size
    return items


def _layout(
    element: Element,
    *,
    frames: tuple[tuple[int, int], ...] = (),
    fragments: tuple[tuple[int, int], ...] = (),
    offset_table: tuple[int, ...] = (),
) -> PixelLayout:
    return PixelLayout(
        vr=element.vr.decode("ascii", "replace"),
        element_offset=element.offset,
        value_offset=element.value_offset,
        value_size_bytes=element.value_end - element.value_offset,
        end_offset=element.end,
        encapsulated=element.undefined,
        frames=frames,
        fragments=fragments,
        offset_table=offset_table,
    )
