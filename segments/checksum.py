"""CRC32C (Castagnoli, RFC 3720 appendix B.4) of any buffer, without copying it."""

from __future__ import annotations

from collections.abc import Iterable

import google_crc32c
import numpy as np

Buffer = bytes | bytearray | memoryview


def crc32c(parts: Iterable[Buffer], start: int = 0) -> int:
    """The CRC32C of the parts, one after the other, going on from `start`."""
    value = start
    for part in parts:
        if len(part):
            # The C extension takes only objects without a buffer to release; an array over the same bytes is one.
            value = google_crc32c.extend(value, part if isinstance(part, bytes) else np.frombuffer(part, np.uint8))
    return value


def crc32c_hex(parts: Iterable[Buffer]) -> str:
    """The same as eight lower-case hex digits, as records and message attributes hold it."""
    return f"{crc32c(parts):08x}"
