"""The end of a sealed segment: index member, trailer member, two zero blocks.

The trailer is a member of fixed size, its body one line of text, so that ``tail -c 1536 SEGMENT.tar`` shows it::

    sansfilm-segment-1 index=<offset> size=<bytes> crc32c=<hex> check=<hex>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from segments.checksum import crc32c_hex
from segments.tar import (
    BLOCK,
    CRC32C,
    OWN_FOLDER,
    SEGMENT,
    ReadRange,
    SegmentDamaged,
    member_header,
    padding,
)

_HEADER_BYTES = 3 * BLOCK
#: The trailer's header, its line, and the end of the archive.
TRAILER_BYTES: Final = _HEADER_BYTES + BLOCK + 2 * BLOCK

_LINE = re.compile(
    rb"(sansfilm-segment-1 index=(?P<offset>\d{20}) size=(?P<size>\d{20}) crc32c=(?P<crc>[0-9a-f]{8})) "
    rb"check=(?P<check>[0-9a-f]{8})\n"
)


class NotSealed(SegmentDamaged):
    """The segment has no trailer: its writer is still at work, or died. Scan or recover it instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """Where the index's body lies, and its CRC32C in hex."""

    index_offset: int
    index_size_bytes: int
    index_crc32c: str


def seal_blocks(*, segment: str, offset: int, index_lines: Sequence[bytes]) -> list[bytes]:
    """What is appended at `offset` to seal a segment."""
    index = b"".join(line + b"\n" for line in index_lines)
    crc = crc32c_hex([index])
    header = _header(segment, "index", len(index), crc)
    line = b"sansfilm-segment-1 index=%020d size=%020d crc32c=%s" % (offset + len(header), len(index), crc.encode())
    line = b"%s check=%s\n" % (line, crc32c_hex([line]).encode())
    trailer = _header(segment, "trailer", len(line), crc32c_hex([line]), _HEADER_BYTES)
    return [header, index, padding(len(index)), trailer, line, padding(len(line)), bytes(2 * BLOCK)]


def read_trailer(read_range: ReadRange, size_bytes: int) -> Trailer:
    """The trailer of a segment of `size_bytes`, by one suffix read.

    Raises:
        NotSealed: there is none.
    """
    if size_bytes < TRAILER_BYTES:
        raise NotSealed("too short for a trailer")
    suffix = read_range(size_bytes - TRAILER_BYTES, TRAILER_BYTES)
    found = _LINE.match(suffix, _HEADER_BYTES)
    if found is None or crc32c_hex([found[1]]).encode() != found["check"]:
        raise NotSealed("no trailer")
    trailer = Trailer(
        index_offset=int(found["offset"]), index_size_bytes=int(found["size"]), index_crc32c=found["crc"].decode()
    )
    if trailer.index_offset + trailer.index_size_bytes > size_bytes - TRAILER_BYTES:
        raise NotSealed("a trailer of another segment")
    return trailer


def _header(segment: str, suffix: str, size_bytes: int, crc: str, header_size_bytes: int | None = None) -> bytes:
    return member_header(
        name=f"{OWN_FOLDER}{segment}.{suffix}",
        size_bytes=size_bytes,
        provenance={CRC32C: crc, SEGMENT: segment},
        header_size_bytes=header_size_bytes,
    )
