"""Recovery of a segment that was never sealed, or in which bytes have rotted.

Nothing is discarded: each member that verifies is given, each piece that does not is named, copied beside the segment
as ``.torn`` and raised as an alarm. A piece with nothing valid behind it is a *tail*, the usual end of a writer that
was killed; a piece with valid members behind it is *corrupt*: bytes that were once written well.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from runtime.errors import Retryable
from runtime.logs import get_logger
from runtime.metrics import LOG_TORN
from segments.checksum import crc32c
from segments.disk import Disk
from segments.tar import BLOCK, CRC32C, SEGMENT, Member, SegmentDamaged, read_member

_MAGIC_AT = 257
_MAGIC = b"ustar\x0000"
_COPY_BYTES = 1024 * 1024


class TornKind(StrEnum):
    """What a piece that does not verify looks like; a metric label."""

    TAIL = "tail"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class TornPiece:
    """A range of bytes in which no member verifies."""

    offset: int
    size_bytes: int
    kind: TornKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a segment still holds: members whose header and body verify, and the pieces between them."""

    members: Sequence[Member]
    torn: Sequence[TornPiece]


def recover(path: Path, *, segment: str | None = None, start: int = 0, end: int | None = None) -> Recovery:
    """Everything that verifies between two offsets, reading every body; the file is not changed.

    `segment` is the name its members must carry, by default the file's own without suffix.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        limit = os.fstat(descriptor).st_size if end is None else end
        name = segment or path.name.split(".")[0]
        found = list(_walk(descriptor, name, start, limit))
    finally:
        os.close(descriptor)
    return Recovery(
        members=[piece for piece in found if isinstance(piece, Member) and not piece.is_own],
        torn=[piece for piece in found if isinstance(piece, TornPiece)],
    )


def next_member(descriptor: int, segment: str, start: int, end: int) -> Member | None:
    """The first member of `segment` at a block boundary from `start` on of which header and body verify."""
    size_bytes = min(end, os.fstat(descriptor).st_size)
    if start >= size_bytes:
        return None
    with mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_READ) as view:
        for offset in _header_offsets(view, start):
            try:
                member = read_member(lambda at, size: view[at : at + size], offset, size_bytes)
            except SegmentDamaged:
                continue
            if member is not None and _verifies(view, member, segment):
                return member
    return None


def torn_piece(descriptor: int, offset: int, end: int, kind: TornKind) -> TornPiece | None:
    """The piece between two offsets, without zeros at its end; None if it is zeros altogether."""
    last = 0
    for at in range(offset, end, _COPY_BYTES):
        block = os.pread(descriptor, min(_COPY_BYTES, end - at), at)
        if stripped := len(block.rstrip(b"\0")):
            last = at + stripped
    return TornPiece(offset=offset, size_bytes=last - offset, kind=kind) if last else None


def keep_torn(disk: Disk, path: Path, piece: TornPiece) -> Path:
    """Copy a piece to ``<segment>.<offset>.torn`` beside `path`, durable on return, with an alarm; once for each piece.

    Raises:
        OutOfSpace, Retryable: it was not copied; the segment must not be deleted.
    """
    kept = path.with_name(f"{path.name.split('.tar')[0]}.{piece.offset}.torn")
    if kept.exists():
        return kept
    LOG_TORN.labels(kind=piece.kind.value).inc()
    get_logger().error(
        "segment_torn",
        segment=path.name,
        offset=piece.offset,
        size_bytes=piece.size_bytes,
        kind=piece.kind.value,
        kept_as=kept.name,
    )
    _copy(disk, path, piece, kept)
    return kept


def _walk(descriptor: int, segment: str, start: int, end: int) -> Iterator[Member | TornPiece]:
    at = start
    while at < end:
        member = next_member(descriptor, segment, at, end)
        stop = member.header_offset if member else end
        kind = TornKind.CORRUPT if member else TornKind.TAIL
        if stop > at and (piece := torn_piece(descriptor, at, stop, kind)) is not None:
            yield piece
        if member is None:
            return
        yield member
        at = member.next_offset


def _header_offsets(view: mmap.mmap, start: int) -> Iterator[int]:
    """Block boundaries at which something looks like a header."""
    at = view.find(_MAGIC, start + _MAGIC_AT)
    while at >= 0:
        if (at - _MAGIC_AT) % BLOCK == 0:
            yield at - _MAGIC_AT
        at = view.find(_MAGIC, at + 1)


def _verifies(view: mmap.mmap, member: Member, segment: str) -> bool:
    if member.provenance.get(SEGMENT) != segment:
        return False
    with memoryview(view) as whole, whole[member.offset : member.offset + member.size_bytes] as body:
        return f"{_crc32c_of(body):08x}" == member.provenance.get(CRC32C)


def _crc32c_of(body: memoryview) -> int:
    """In pieces that are copied, so that no array outlives the mapping."""
    value = 0
    for at in range(0, len(body), _COPY_BYTES):
        value = crc32c([bytes(body[at : at + _COPY_BYTES])], value)
    return value


def _copy(disk: Disk, path: Path, piece: TornPiece, kept: Path) -> None:
    part = kept.with_name(kept.name + ".part")
    disk.remove(part)
    file = disk.create(part)
    try:
        with path.open("rb") as source:
            source.seek(piece.offset)
            remaining = piece.size_bytes
            while remaining and (block := source.read(min(_COPY_BYTES, remaining))):
                file.append([block])
                remaining -= len(block)
        file.sync()
        disk.rename(part, kept)
        disk.sync_folder(kept.parent)
    except Retryable:
        disk.remove(part)
        raise
    finally:
        file.close()
