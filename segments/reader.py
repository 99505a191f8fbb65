"""Reading a segment: the index of a sealed one, and a scan of any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from segments.checksum import crc32c_hex
from segments.tar import Member, ReadRange, SegmentDamaged, read_member, verify_body
from segments.trailer import NotSealed, Trailer, read_trailer

ScannedMember = Member

__all__ = ["NotSealed", "ScannedMember", "SegmentDamaged", "Trailer", "read_body", "read_index", "scan"]


def read_index(read_range: ReadRange, size_bytes: int) -> list[bytes]:
    """The index lines of a segment of `size_bytes`, by two reads; `read_range(offset, size)` may be a remote one.

    Raises:
        NotSealed: the segment has no trailer.
        SegmentDamaged: it has one, but the index does not match its CRC32C.
    """
    trailer = read_trailer(read_range, size_bytes)
    index = read_range(trailer.index_offset, trailer.index_size_bytes)
    if crc32c_hex([index]) != trailer.index_crc32c:
        raise SegmentDamaged("the index does not match its CRC32C")
    return index.split(b"\n")[:-1]


def scan(path: Path, *, start: int = 0, end: int | None = None) -> Iterator[ScannedMember]:
    """The members of a segment in order, index and trailer left out; bodies are not read (see `read_body`).

    Raises:
        SegmentDamaged: from the first member that is not whole; those before it were given. See `segments.recover`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(descriptor).st_size if end is None else end
        yield from scan_descriptor(descriptor, start, size_bytes)
    finally:
        os.close(descriptor)


def scan_descriptor(descriptor: int, start: int, end: int) -> Iterator[ScannedMember]:
    """The same on an open file, between two offsets."""

    def read(offset: int, size: int) -> bytes:
        return os.pread(descriptor, size, offset)

    at = start
    while (member := read_member(read, at, end)) is not None:
        if not member.is_own:
            yield member
        at = member.next_offset


def read_body(descriptor: int, member: ScannedMember) -> bytes:
    """The body of a member, verified.

    Raises:
        SegmentDamaged: it does not match its CRC32C.
    """
    body = os.pread(descriptor, member.size_bytes, member.offset)
    verify_body(member, body)
    return body
