"""Appending past the page cache (``O_DIRECT``): bytes that are synced at once need no second place in memory.

A page cache that must first find memory for what comes costs more than the disk: up to ten times the write was seen.
What is appended is copied into one aligned piece of memory and goes from there to the device; it is durable after a
sync and never before, as with any other write. Where the file system does not know ``O_DIRECT``, or wants a coarser
alignment than a tar block, the file is written through the page cache from then on.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Final

#: Memory of one file being written, and what goes to the device by one call.
ALIGNED_BYTES: Final = 4 * 1024 * 1024
#: What offsets and sizes must be a multiple of; the memory is aligned to a page.
_ALIGNMENT: Final = 512
#: Linux takes this many buffers in one writev (IOV_MAX).
_BUFFERS_MAX: Final = 1024

Buffer = bytes | bytearray | memoryview


class AlignedWriter:
    """Writes the appends of one file; not thread-safe."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, ALIGNED_BYTES))
        self._is_refused = False

    def __call__(self, descriptor: int, parts: Sequence[Buffer], offset: int) -> int:
        """Write the parts at `offset`, one after the other; gives the number of bytes.

        Raises:
            OSError: as `write_all`; any part of it may have been written.
        """
        if not self._is_refused and (offset + sum(map(len, parts))) % _ALIGNMENT == offset % _ALIGNMENT == 0:
            try:
                return self._write_direct(descriptor, parts, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._is_refused = True
        _set_direct(descriptor, False)
        return write_all(descriptor, parts, offset)

    def _write_direct(self, descriptor: int, parts: Sequence[Buffer], offset: int) -> int:
        _set_direct(descriptor, True)
        return sum(write_all(descriptor, [piece], offset + at) for at, piece in self._gathered(parts))

    def _gathered(self, parts: Sequence[Buffer]) -> Iterator[tuple[int, memoryview]]:
        """The parts joined, in pieces of the aligned memory, each with where it begins."""
        at = filled = 0
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:
                size = min(len(rest), ALIGNED_BYTES - filled)
                self._memory[filled : filled + size] = rest[:size]
                rest, filled = rest[size:], filled + size
                if filled == ALIGNED_BYTES:
                    yield at, self._memory
                    at, filled = at + filled, 0
        if filled:
            yield at, self._memory[:filled]


def write_all(descriptor: int, parts: Sequence[Buffer], offset: int) -> int:
    """Positioned writes until everything is written; gives the number of bytes."""
    start = offset
    pending = [view for part in parts if len(view := memoryview(part).cast("B"))]
    first = 0
    while first < len(pending):
        written = os.pwritev(descriptor, pending[first : first + _BUFFERS_MAX], offset)
        offset += written
        while first < len(pending) and written >= len(pending[first]):
            written -= len(pending[first])
            first += 1
        if written:
            pending[first] = pending[first][written:]
    return offset - start


def _set_direct(descriptor: int, wanted: bool) -> None:
    """Raises OSError (EINVAL) where the file system cannot."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if bool(flags & os.O_DIRECT) != wanted:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags ^ os.O_DIRECT)
