"""A one-member segment written while its bytes still arrive (claim check).

Neither size nor digest is known before the end, so a header of fixed size is left free and written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import Retryable
from segments.checksum import crc32c
from segments.disk import Buffer, Disk
from segments.sweep import PART_SUFFIX
from segments.tar import CRC32C, SEGMENT, member_header, padding
from segments.trailer import seal_blocks

#: What is left free for the header: 3 KiB of records.
HEADER_BYTES: Final = 4096

SHA256: Final = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedMember:
    """The finished member: where its body lies, its digests in hex."""

    offset: int
    size_bytes: int
    sha256: str
    crc32c: str


class StreamedFrame:
    """Counts and hashes a body while it passes, then frames it. Where the bytes go is the caller's business."""

    def __init__(self, segment: str) -> None:
        """`segment` is the segment's name without folder and suffix."""
        self._segment = segment
        self._sha256 = hashlib.sha256()
        self._crc32c = 0
        #: Bytes of the body so far.
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the body so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def crc32c(self) -> str:
        """CRC32C of the body so far, eight hex digits."""
        return f"{self._crc32c:08x}"

    def pass_on(self, chunk: Buffer) -> None:
        """Take the next chunk of the body into account."""
        self._sha256.update(chunk)
        self._crc32c = crc32c([chunk], self._crc32c)
        self.size_bytes += len(chunk)

    def member(self) -> StreamedMember:
        """The member, all of its body having passed."""
        return StreamedMember(offset=HEADER_BYTES, size_bytes=self.size_bytes, sha256=self.sha256, crc32c=self.crc32c)

    def header(self, name: str, provenance: Mapping[str, str]) -> bytes:
        """The `HEADER_BYTES` that stand before the body.

        Raises:
            ValueError: the provenance does not fit.
        """
        own = {SHA256: self.sha256, CRC32C: self.crc32c, SEGMENT: self._segment}
        return member_header(
            name=name, size_bytes=self.size_bytes, provenance={**provenance, **own}, header_size_bytes=HEADER_BYTES
        )

    def end(self) -> list[bytes]:
        """What follows the body: its padding and the end of the segment."""
        filled = padding(self.size_bytes)
        offset = HEADER_BYTES + self.size_bytes + len(filled)
        return [filled, *seal_blocks(segment=self._segment, offset=offset, index_lines=())]


class StreamedSegment:
    """Writes chunks to ``<path>.part`` and gives the file its name when it is whole and durable. Not thread-safe.

    A crash leaves only the ``.part``, which `segments.sweep.sweep_parts` removes at the next start.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        """Begin the segment that will be called `path`; missing folders are made.

        Raises:
            OutOfSpace, Retryable: nothing was created.
        """
        self.path = path
        self._disk = disk
        self._part = path.with_name(path.name + PART_SUFFIX)
        disk.make_folder(path.parent)
        self._file = disk.create(self._part)
        self._frame = StreamedFrame(path.name.split(".")[0])
        try:
            self._file.append([bytes(HEADER_BYTES)])
        except BaseException:
            self.abort()
            raise

    @property
    def size_bytes(self) -> int:
        """Bytes of the body so far."""
        return self._frame.size_bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the body so far, in hex."""
        return self._frame.sha256

    @property
    def crc32c(self) -> str:
        """CRC32C of the body so far, eight hex digits."""
        return self._frame.crc32c

    def write(self, chunk: Buffer) -> None:
        """Append to the body.

        Raises:
            OutOfSpace, Retryable: call `abort`.
        """
        self._file.append([chunk])
        self._frame.pass_on(chunk)

    def finish(self, name: str, provenance: Mapping[str, str]) -> StreamedMember:
        """Write the header, seal, sync and rename into place; durable on return.

        Raises:
            OutOfSpace, Retryable: nothing is visible; the part is removed.
            ValueError: the provenance does not fit `HEADER_BYTES`; call `abort`.
        """
        header = self._frame.header(name, provenance)
        try:
            self._seal(header)
        except BaseException:
            self.abort()
            raise
        return self._frame.member()

    def abort(self) -> None:
        """Remove what was written. May be called again, and does nothing to a finished segment."""
        self._file.close()
        self._disk.remove(self._part)

    def _seal(self, header: bytes) -> None:
        self._file.append(self._frame.end())
        self._file.write_at(0, header)
        self._file.sync()
        self._disk.rename(self._part, self.path)
        try:
            self._disk.sync_folder(self.path.parent)
        except Retryable:
            self._disk.remove(self.path)
            raise
        self._file.close()
