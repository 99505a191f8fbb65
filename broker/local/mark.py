"""The durable mark: how far a file of the log may be read.

Its writer overwrites it in place after each `fdatasync` of the data, without syncing the mark itself: a mark lost in a
power cut is an older one or none, the writer is then dead, and consumers recover the file instead of trusting a mark.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from segments.checksum import crc32c

_LAYOUT = struct.Struct("<8sQQ?3x")
_MAGIC = b"sfmark1\n"
_CHECK = struct.Struct("<I")
MARK_BYTES: Final = _LAYOUT.size + _CHECK.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Bytes and messages that are durable; `finished` when no more will come."""

    offset: int = 0
    messages: int = 0
    finished: bool = False

    def encode(self) -> bytes:
        """Fixed size, with its CRC32C."""
        body = _LAYOUT.pack(_MAGIC, self.offset, self.messages, self.finished)
        return body + _CHECK.pack(crc32c([body]))

    @classmethod
    def decode(cls, encoded: bytes) -> Mark | None:
        """The inverse of `encode`; None for anything else, a torn one included."""
        body, check = encoded[: _LAYOUT.size], encoded[_LAYOUT.size : MARK_BYTES]
        if len(check) < _CHECK.size or _CHECK.unpack(check)[0] != crc32c([body]):
            return None
        magic, offset, messages, finished = _LAYOUT.unpack(body)
        return cls(offset=offset, messages=messages, finished=finished) if magic == _MAGIC else None
