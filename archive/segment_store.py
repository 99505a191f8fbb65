"""The seam to the bytes: immutable segments, put once, read by range, listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runtime.errors import SansfilmError
from schemas.identifiers import SegmentKey
from schemas.record import MemberLocation, Record
from segments.recover import Recovery
from segments.streamed import StreamedMember

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
    #: See `PlacedRecord.origin`.
    origin: str = ""

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
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSegment:
    """A segment that was put."""

    key: SegmentKey
    #: Where its members lie, in the order they were given; an adopted one lies elsewhere.
    locations: Sequence[MemberLocation]


class SegmentStore(Protocol):
    """Where segments live. A batch of one tenant becomes one segment."""

    def put(self, tenant: str, members: Sequence[PreparedMember | AdoptedMember]) -> PutSegment:
        """Write one segment with its index; durable on return.

        Its key sorts after those of all segments that this process put before; where one process alone puts, after
        those of all segments put before.

        Raises:
            OutOfSpace, Retryable: nothing is visible half; the same members may be put again. A store that cannot tell
                whether it took them puts them again under that same older key, so that they are there once.
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

    def keys(self, prefix: str = "") -> Iterator[SegmentKey]:
        """Keys of complete segments, sorted by their last component (time of creation); `prefix` ends with a slash."""

    def sized_keys(self) -> Iterator[tuple[SegmentKey, int]]:
        """All keys in the same order, each with its segment's size in bytes."""

    def aged_keys(self) -> Iterator[tuple[SegmentKey, datetime]]:
        """All keys in the same order, each with the time at which the store got it, by the store's own clock.

        A key tells another time: a claim check has it since its receipt, and may be shipped days later.
        """

    def now(self) -> datetime:
        """The time by the clock of `aged_keys`. It writes a small file to see it.

        Raises:
            OutOfSpace, Retryable: the store is full or away.
        """

    def journal_entry(self, key: str) -> bytes:
        """The one member of a journal segment, verified.

        Raises:
            SegmentDamaged: it is not whole.
        """

    def newest_first(self) -> Iterator[SegmentKey]:
        """Keys of complete segments of instances, the last made first; listed a day at a time."""

    def index(self, key: str) -> Sequence[bytes]:
        """The index lines of a segment: records that the worker put. A claim check has none.

        Raises:
            SegmentDamaged: it has no readable index.
            FileNotFoundError: there is no such segment.
        """

    def members(self, key: str) -> Recovery:
        """What verifies in a segment whatever its state, reading all of it."""

    def size_bytes(self, key: str) -> int:
        """The size of a segment. FileNotFoundError if there is none."""

    def delete(self, key: str) -> None:
        """Remove a segment that nothing refers to, if it is there."""

    def read_state(self, name: str) -> bytes | None:
        """What `put_state` wrote last under a name; None if nothing."""

    def put_state(self, name: str, body: bytes) -> None:
        """Write a small file of the catalog's into the archive's root, over the one that is there; durable on return.

        Raises:
            OutOfSpace, Retryable: it may be there, or the one before.
        """

    def sweep(self) -> int:
        """Remove what dead processes left half written, where that takes room here; gives its number."""

    def close(self) -> None:
        """Release what is kept open; the store stays usable."""


class KeyTaken(SansfilmError):
    """Another content has this key already; nothing was changed. Somebody has to look at both."""


class ClaimCheck(Protocol):
    """A one-member segment that is written while its bytes still arrive. Not thread-safe.

    Nobody sees it before `finish`; nothing visible is left by `abort` or a crash.
    """

    @property
    def key(self) -> SegmentKey:
        """Its final key."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the body so far."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the body so far, in hex."""

    @property
    def crc32c(self) -> str:
        """CRC32C of the body so far, eight hex digits."""

    def write(self, chunk: Buffer) -> None:
        """Append to the body; the chunk may be reused on return.

        Raises:
            OutOfSpace, Retryable: call `abort`.
        """

    def finish(self, name: str, provenance: Mapping[str, str]) -> StreamedMember:
        """Frame the body; durable and visible on return.

        Raises:
            OutOfSpace, Retryable: nothing is visible, or a segment that nothing will ever name.
            ValueError: the provenance does not fit; call `abort`.
        """

    def abort(self) -> None:
        """Leave nothing of an unfinished segment. May be called again; does nothing to a finished one."""

    def withdraw(self) -> None:
        """Remove the finished segment: nothing names it."""


OpenClaimCheck = Callable[[str], ClaimCheck]
"""Begins a claim check of a tenant. Raises OutOfSpace, Retryable."""


Comparer = Callable[[MemberLocation, MemberLocation], bool]
"""Whether two stored members are equal element by element (DESIGN section 4), read from the store."""
