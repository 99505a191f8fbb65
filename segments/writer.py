"""Writing a segment: append members, sync, seal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segments.checksum import crc32c_hex
from segments.disk import Buffer, Disk
from segments.tar import BLOCK, CRC32C, SEGMENT, member_header, padding
from segments.trailer import seal_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpan:
    """Where a member was written. `next_offset` is where the following one begins."""

    header_offset: int
    offset: int
    size_bytes: int
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedMember:
    """A member ready to be appended; its parts are referenced, not copied."""

    header: bytes
    parts: Sequence[Buffer]
    size_bytes: int

    @property
    def total_bytes(self) -> int:
        """What it takes in the segment."""
        return len(self.header) + self.size_bytes + -self.size_bytes % 512


def encode_member(
    *,
    segment: str,
    name: str,
    provenance: Mapping[str, str],
    parts: Sequence[Buffer],
    multiple_of: int = BLOCK,
) -> EncodedMember:
    """Frame a member of a size that is a multiple of `multiple_of`; computes its CRC32C unless the provenance gives it.

    Raises:
        ValueError: see `segments.tar.member_header`.
    """
    size_bytes = sum(len(part) for part in parts)
    crc = provenance.get(CRC32C) or crc32c_hex(parts)
    header = member_header(
        name=name,
        size_bytes=size_bytes,
        provenance={**provenance, CRC32C: crc, SEGMENT: segment},
        multiple_of=multiple_of,
    )
    return EncodedMember(header=header, parts=parts, size_bytes=size_bytes)


def member_blocks(members: Sequence[EncodedMember]) -> list[Buffer]:
    """What stands in a segment of these members, buffer by buffer; nothing is copied."""
    return [block for one in members for block in (one.header, *one.parts, padding(one.size_bytes))]


class SegmentWriter:
    """Appends members to a new file. Not thread-safe; the caller closes it.

    Nothing is durable before `sync`. After any error the segment is to be abandoned. The file keeps the name it was
    created with: who wants it to appear whole syncs it, renames it through the disk and syncs the folder.
    """

    def __init__(self, disk: Disk, path: Path, *, segment: str | None = None, uncached: bool = False) -> None:
        """Create `path`, which must not exist. `segment` is its final name without folder and suffix.

        `uncached` is for a segment that is synced as soon as it is appended to, see `Disk.create_uncached`.
        """
        self.segment = segment or path.name.split(".")[0]
        self.path = path
        self._disk = disk
        self._file = disk.create_uncached(path) if uncached else disk.create(path)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._file.size_bytes

    def append(self, name: str, provenance: Mapping[str, str], parts: Sequence[Buffer]) -> MemberSpan:
        """Append one member; its parts are written one after the other and never joined in memory.

        Raises:
            OutOfSpace, Retryable: abandon the segment.
        """
        return self.append_encoded(
            [encode_member(segment=self.segment, name=name, provenance=provenance, parts=parts)]
        )[0]

    def append_encoded(self, members: Sequence[EncodedMember]) -> list[MemberSpan]:
        """Append members framed by `encode_member` for this segment, with as few writes as possible."""
        spans: list[MemberSpan] = []
        at = self._file.size_bytes
        for member in members:
            offset, size_bytes = at + len(member.header), member.size_bytes
            spans.append(
                MemberSpan(header_offset=at, offset=offset, size_bytes=size_bytes, next_offset=at + member.total_bytes)
            )
            at += member.total_bytes
        self._file.append(member_blocks(members))
        return spans

    def sync(self) -> None:
        """Make everything appended durable.

        Raises:
            OutOfSpace, Retryable: abandon the segment; never sync it again.
        """
        self._file.sync()

    def seal(self, index_lines: Sequence[bytes] = ()) -> None:
        """Append index, trailer and end of archive; follow with `sync`. Nothing may be appended afterwards."""
        self._file.append(seal_blocks(segment=self.segment, offset=self._file.size_bytes, index_lines=index_lines))

    def truncate(self, size_bytes: int) -> None:
        """Take back what was appended behind `size_bytes`; the segment can only be closed afterwards."""
        self._file.truncate(size_bytes)

    def close(self) -> None:
        """Close the file as it is; makes nothing durable."""
        self._file.close()

    def abandon(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self._disk.remove(self.path)
