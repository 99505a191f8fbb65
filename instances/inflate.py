"""Deflated data sets (PS3.5 A.5), inflated within bounds."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from instances.elements import Buffer
from runtime.errors import Unfileable
from schemas.reasons import QuarantineReason

MIB: Final = 1024 * 1024
#: However large the stream, no more than this is inflated.
INFLATED_BYTES_MAX: Final = 512 * MIB
#: Beyond `FREE_BYTES`, no more than this many times the stream's size is inflated.
RATIO_MAX: Final = 100
FREE_BYTES: Final = 16 * MIB

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflated:
    """What a deflated stream held."""

    content: bytearray
    #: The stream ended as it should.
    complete: bool
    #: Bytes behind the stream's end; one of padding is usual.
    trailing_bytes: int


def inflate(stream: Buffer) -> Inflated:
    """The content of a raw deflate stream; of a broken one, what could be had.

    Raises:
        Unfileable: DECODE_LIMIT; the stream grows beyond `INFLATED_BYTES_MAX` or `RATIO_MAX`.
    """
    view = memoryview(stream)
    limit = min(INFLATED_BYTES_MAX, max(FREE_BYTES, RATIO_MAX * len(view)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = bytearray()
    position = 0
    try:
        while not inflater.eof:
            chunk: Buffer = inflater.unconsumed_tail
            if not chunk:
                if position >= len(view):
                    break
                chunk = view[position : position + _CHUNK]
                position += len(chunk)
            content += inflater.decompress(chunk, 4 * _CHUNK)
            if len(content) > limit:
                raise Unfileable(QuarantineReason.DECODE_LIMIT, "the deflated data set grows beyond the limit")
    except zlib.error:
        return Inflated(content=content, complete=False, trailing_bytes=0)
    trailing = len(inflater.unused_data) + len(view) - position
    return Inflated(content=content, complete=inflater.eof, trailing_bytes=trailing)
