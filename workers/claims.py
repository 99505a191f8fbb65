"""Reads what the edge wrote as a claim check: in bounded memory, and needing no room where it lies on this disk."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from archive.filing import member_of
from archive.segment_store import AdoptedMember, Buffer, PreparedMember, SegmentStore
from schemas.message import Message, MessageAttributes
from schemas.record import MemberLocation
from segments.disk import mapped_errors
from segments.tar import SegmentDamaged


def claim_of(attributes: MessageAttributes) -> MemberLocation | None:
    """Where the file of a claim-checked message lies; None if the message carries its file."""
    if not attributes.data_ref:
        return None
    return MemberLocation(segment=attributes.data_ref, offset=attributes.data_offset, size_bytes=attributes.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Members of the store as buffers; a mapped one is unmapped when nobody holds a view of it any more."""

    store: SegmentStore
    #: Larger members are mapped: from their segment, or from a copy.
    memory_max_bytes: int
    #: Where copies are made, without a name.
    spool_dir: Path
    #: The file of a segment, where segments are files of this machine.
    file_of: Callable[[str], Path] | None = None

    def file(self, message: Message) -> Buffer:
        """The Part-10 file of `message`: its value, or its claim.

        Raises:
            FileNotFoundError, SegmentDamaged: the claim is not there, or not all of it.
            OutOfSpace, Retryable: the store is away, or there is no room for a copy.
        """
        claim = claim_of(message.attributes)
        return message.value if claim is None else self.member(claim)

    def member(self, location: MemberLocation) -> Buffer:
        """The file of a member. Raises what `file` raises."""
        if location.size_bytes <= self.memory_max_bytes:
            return self.store.read(location)
        if self.file_of is not None:
            return _mapped(self.file_of(location.segment), location)
        return self._copied(location)

    def _copied(self, location: MemberLocation) -> Buffer:
        with mapped_errors("copy a claim check"), tempfile.TemporaryFile(dir=self.spool_dir) as spooled:
            for piece in self.store.stream(location):
                spooled.write(piece)
            spooled.flush()
            return memoryview(mmap.mmap(spooled.fileno(), 0, access=mmap.ACCESS_READ))


def _mapped(path: Path, location: MemberLocation) -> Buffer:
    end = location.offset + location.size_bytes
    with mapped_errors("map a claim check"), path.open("rb") as segment:
        if path.stat().st_size < end:
            raise SegmentDamaged("the segment is shorter than its claim check says")
        mapped = mmap.mmap(segment.fileno(), end, access=mmap.ACCESS_READ)
    return memoryview(mapped)[location.offset : end]


def carried(
    member: PreparedMember | AdoptedMember, condemned: Collection[str], store: SegmentStore
) -> PreparedMember | AdoptedMember:
    """`member`; where its claim check is being collected, its bytes, read while they are still there.

    Raises:
        FileNotFoundError: they are gone: the collector's settings did not cover how long the message was on its way.
    """
    if isinstance(member, PreparedMember) or member.location.segment not in condemned:
        return member
    return member_of(member.record, list(store.stream(member.location)))
