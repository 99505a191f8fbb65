"""The seam to the bytes: immutable segments, put once, read by range, listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.record import MemberLocation, Record

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedMember:
    """A Part-10 file ready for a segment. The parts are written one after the other and never joined in memory."""

    record: Record
    #: The member's name in the tar; never trusted as a path.
    name: str
    #: Pax records ``SCHILY.xattr.user.sansfilm.*`` without that prefix: what DICOM itself cannot say.
    provenance: Mapping[str, str]
    parts: Sequence[Buffer]

    @property
    def size_bytes(self) -> int:
        return sum(len(part) for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedMember:
    """A Part-10 file that the edge already wrote into a segment of its own (claim check): committed where it lies.

    Only its record is written, into the index of the batch's segment.
    """

    record: Record
    location: MemberLocation


class SegmentStore(Protocol):
    """Where segments live. A batch of one tenant becomes one segment."""

    def put(self, tenant: str, members: Sequence[PreparedMember | AdoptedMember]) -> Sequence[MemberLocation]:
        """Write one segment with its index; durable on return. Locations are in the order of `members`.

        Raises:
            OutOfSpace, Retryable: nothing became visible; the same members may be put again.
        """

    def put_journal(self, entry: Mapping[str, object]) -> str:
        """Write one journal entry as a segment of its own; durable on return. Gives its key."""

    def read(self, location: MemberLocation, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Bytes of a member's file, from `offset` within it.

        Raises:
            Retryable: the store is away.
            FileNotFoundError: there is no such segment; the caller resolves the location once more.
        """

    def stream(self, location: MemberLocation, offset: int = 0, size_bytes: int | None = None) -> Iterator[bytes]:
        """The same in pieces of bounded size."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Keys of complete segments, sorted by their last component (time of creation)."""

    def delete(self, key: str) -> None:
        """Remove a segment that nothing refers to."""


Comparer = Callable[[MemberLocation, MemberLocation], bool]
"""Whether two stored members are equal element by element (DESIGN section 4), read from the store."""
