"""What a group of consumers has done: one small state file a lane, overwritten in place.

The file has two halves. Each save overwrites the older half and syncs it, so that a torn save leaves the other one. It
needs no space that it does not already have: with the disk full and nothing freed, what is in the log still gets done.
A half is a line ``sfpos1 <sequence> <size> <crc32c>`` and the JSON of that size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import Retryable
from runtime.logs import get_logger
from segments.checksum import crc32c_hex
from segments.disk import Disk, OpenFile

#: Room for the positions of some 800 files, before the file is made larger.
_HALF_BYTES: Final = 65536
_LINE = re.compile(rb"sfpos1 (?P<sequence>\d{20}) (?P<size>\d{10}) (?P<crc>[0-9a-f]{8})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """How far one file of the log is done: the next offset to read, and messages before it."""

    next_offset: int = 0
    messages: int = 0


Positions = Mapping[str, Committed]
"""By file name without suffix."""


class PositionsFile:
    """The state file as its one consumer holds it."""

    def __init__(self, disk: Disk, path: Path) -> None:
        """Load what was saved last, or begin with nothing.

        Raises:
            OutOfSpace, Retryable: the file cannot be made or opened.
        """
        self._disk = disk
        self._path = path
        self._file: OpenFile | None = None
        self._half_bytes = _HALF_BYTES
        found = _load(path)
        self._sequence, self._saved = found or (0, {})
        if found is None:
            self._rewrite(self._saved)
        else:
            self._half_bytes = path.stat().st_size // 2

    @property
    def saved(self) -> Positions:
        """What is durable."""
        return self._saved

    def save(self, positions: Positions) -> None:
        """Make the positions durable.

        Raises:
            OutOfSpace, Retryable: the old ones stand, or the new ones; save again.
        """
        encoded = _encode(self._sequence + 1, positions)
        if len(encoded) > self._half_bytes:
            self._rewrite(positions)
            return
        try:
            self._file = self._file or self._disk.reopen(self._path)
            self._file.write_at((self._sequence + 1) % 2 * self._half_bytes, encoded)
            self._file.sync()
        except Retryable:
            self.close()
            self._half_bytes = 0  # never synced again: the next save makes another file
            raise
        self._sequence += 1
        self._saved = dict(positions)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self, positions: Positions) -> None:
        """Another file in the place of this one, large enough."""
        self.close()
        encoded = _encode(self._sequence + 1, positions)
        half_bytes = max(_HALF_BYTES, self._half_bytes)
        while half_bytes < len(encoded):
            half_bytes *= 2
        halves = [b"", b""]
        halves[(self._sequence + 1) % 2] = encoded
        self._disk.replace(self._path, b"".join(half.ljust(half_bytes, b"\0") for half in halves))
        self._half_bytes = half_bytes
        self._sequence += 1
        self._saved = dict(positions)


def positions_path(folder: Path, group: str) -> Path:
    """The state file of a group in a lane's folder."""
    return folder / f"positions-{group}"


def load_positions(path: Path) -> Positions:
    """The positions last saved, seen from outside; none if there are none.

    An unreadable file (only a broken disk makes one) also counts as none: everything that is still in the log is
    delivered again, which the archive answers with Same.
    """
    found = _load(path)
    return found[1] if found else {}


def other_groups(folder: Path, group: str) -> Iterator[Positions]:
    """The positions of every other group that reads this lane."""
    for path in folder.glob("positions-*"):
        if not path.suffix and path != positions_path(folder, group):
            yield load_positions(path)


def _load(path: Path) -> tuple[int, dict[str, Committed]] | None:
    """The newer half that is whole; None without one."""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        half_bytes = len(content) // 2
        halves = [_decode(content[:half_bytes]), _decode(content[half_bytes:])]
        if whole := [half for half in halves if half is not None]:
            return max(whole, key=lambda half: half[0])
        get_logger().error("log_positions_unreadable", file=path.name)
    return None


def _encode(sequence: int, positions: Positions) -> bytes:
    body = json.dumps({name: (done.next_offset, done.messages) for name, done in sorted(positions.items())}).encode()
    numbers = b"%020d %010d" % (sequence, len(body))
    return b"sfpos1 %s %s\n%s" % (numbers, crc32c_hex([numbers, body]).encode(), body)


def _decode(half: bytes) -> tuple[int, dict[str, Committed]] | None:
    line = _LINE.match(half)
    if line is None:
        return None
    body = half[line.end() : line.end() + int(line["size"])]
    if crc32c_hex([b"%s %s" % (line["sequence"], line["size"]), body]).encode() != line["crc"]:
        return None
    streams = json.loads(body)
    return int(line["sequence"]), {name: Committed(next_offset=at, messages=n) for name, (at, n) in streams.items()}
