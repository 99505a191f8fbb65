"""Segments in an object store that speaks S3: one PUT per batch and tenant, read by range, listed by day.

    s3://bucket/prefix/segments/<key>          the same keys and the same bytes as in a folder
    s3://bucket/prefix/catalog/<name>          what the keeper knows of the catalog's life, written over
    s3://bucket/prefix/README.txt, restore.py

Memory. A PUT references the members' parts and copies none of them; a read is what is asked for, twice while it is
handed over; `stream` is `s3_objects.PIECE_BYTES`; listing is a page of names per tenant, `newest_first` the names of a
day. `members` (a segment whose index is lost) needs the segment's size on the temporary disk.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import obstore

from archive import layout
from archive.framing import FramedSegment, frame_batch, frame_entry, member_range
from archive.s3_access import S3Access, access_from
from archive.s3_errors import mapped_errors
from archive.s3_objects import S3Objects
from archive.segment_store import AdoptedMember, KeyTaken, PreparedMember, PutSegment
from runtime.clock import Clock, SystemClock
from runtime.errors import Retryable
from runtime.faults import reach
from runtime.metrics import ARCHIVED_BYTES
from runtime.settings import CommonSettings
from schemas.identifiers import SegmentKey
from schemas.record import MemberLocation
from segments.reader import read_index
from segments.recover import Recovery, recover
from segments.tar import SegmentDamaged, read_member, verify_body

PIECE_BYTES: Final = 1024 * 1024
#: What one ranged GET of a read asks for at most.
READ_BYTES: Final = 64 * PIECE_BYTES
#: What the first read of a segment's end asks for: trailer and, of most segments, the index.
TAIL_BYTES: Final = 64 * 1024
#: Batches of which it is not known whether the store has them.
DOUBTFUL_MAX: Final = 16

_Names = tuple[str, ...]
_Found = tuple[SegmentKey, int, datetime]


def open_s3_store(settings: CommonSettings, clock: Clock | None = None) -> S3SegmentStore:
    """The store that the settings name, asked once whether it is there.

    Raises:
        Misconfigured: a setting is wrong, or the store refuses it.
        Retryable: the store is away.
    """
    access = access_from(settings)
    access.check()
    return S3SegmentStore(access, clock=clock)


class S3SegmentStore:
    """`archive.segment_store.SegmentStore` in an object store. Thread-safe, reading and putting.

    A segment appears whole, by one create-only PUT. Nothing is written by opening; the first put writes the README and
    the restore script into the root.
    """

    def __init__(self, access: S3Access, *, clock: Clock | None = None) -> None:
        self._objects = S3Objects(access)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        #: Id of the newest segment that this process put; None until it puts.
        self._latest: str | None = None
        #: Keys under which batches, known by the ids of their messages, were put without an answer.
        self._doubtful: dict[_Names, SegmentKey] = {}

    # ---- writing ----

    def put(self, tenant: str, members: Sequence[PreparedMember | AdoptedMember]) -> PutSegment:
        """See `SegmentStore.put`.

        A PUT that got no answer may be there. So the same batch, put again, is put under the same key: it is created,
        or found there and compared. Only a process that ends in between leaves a segment that nothing refers to.
        """
        names = (tenant, *(one.record.attributes.id for one in members))
        key = self._doubtful.get(names) or layout.instance_key(tenant, self._next_id())
        framed = frame_batch(key, members)
        self._doubt(names, key)
        try:
            self._create(key, framed)
        except KeyTaken as error:
            self._trust(key)
            raise Retryable("this segment's key is taken; the next attempt takes another") from error
        self._trust(key)
        return PutSegment(key=key, locations=framed.locations)

    def put_journal(self, entry: Mapping[str, object]) -> str:
        """See `SegmentStore.put_journal`. An entry whose PUT got no answer may be there twice, which harms nothing."""
        key = layout.journal_key(self._next_id())
        try:
            self._create(key, frame_entry(key, entry))
        except KeyTaken as error:
            raise Retryable("this entry's key is taken; the next attempt takes another") from error
        return key

    def delete(self, key: str) -> None:
        """See `SegmentStore.delete`."""
        self._objects.delete(key)

    def read_state(self, name: str) -> bytes | None:
        """See `SegmentStore.read_state`."""
        with mapped_errors(f"read {name}"):
            try:
                return obstore.get(self._objects.reading, f"{layout.STATE}/{name}").bytes().to_bytes()
            except FileNotFoundError:
                return None

    def put_state(self, name: str, body: bytes) -> None:
        """See `SegmentStore.put_state`."""
        with mapped_errors(f"write {name}"):
            obstore.put(self._objects.writing, f"{layout.STATE}/{name}", body, use_multipart=False)

    def now(self) -> datetime:
        """See `SegmentStore.now`."""
        self.put_state(layout.CLOCK, b"")
        with mapped_errors("ask for the time"):
            return obstore.head(self._objects.reading, f"{layout.STATE}/{layout.CLOCK}")["last_modified"]

    def sweep(self) -> int:
        """Nothing to remove: a PUT is whole or not there. Unfinished uploads are the bucket's to expire."""
        return 0

    def close(self) -> None:
        """Nothing is kept open but idle connections, which time out."""

    def _next_id(self) -> str:
        with self._lock:
            if self._latest is None:
                self._write_beside()
            candidate = self._clock.new_id()
            self._latest = layout.later_id(candidate, self._latest) if self._latest else candidate
            return self._latest

    def _write_beside(self) -> None:
        for name, content in layout.beside():
            with mapped_errors(f"write {name}"):
                try:
                    if obstore.get(self._objects.reading, name).bytes() == content:
                        continue
                except FileNotFoundError:
                    pass
                obstore.put(self._objects.writing, name, content, use_multipart=False)

    def _doubt(self, names: _Names, key: SegmentKey) -> None:
        """Remember that `key` may be there; forgets the oldest, whose batch was given up or is a lane's of long ago."""
        with self._lock:
            self._doubtful[names] = key
            while len(self._doubtful) > DOUBTFUL_MAX:
                self._doubtful.pop(next(iter(self._doubtful)))

    def _trust(self, key: SegmentKey) -> None:
        """Nothing is to be put under `key` again."""
        with self._lock:
            self._doubtful = {names: doubtful for names, doubtful in self._doubtful.items() if doubtful != key}

    def _create(self, key: SegmentKey, framed: FramedSegment) -> None:
        blocks = framed.blocks()
        reach("store.written")
        self._objects.create(key, blocks)
        reach("store.renamed")
        ARCHIVED_BYTES.inc(sum(map(len, blocks)))

    # ---- reading ----

    def read(self, location: MemberLocation, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """See `SegmentStore.read`: one ranged GET for each `READ_BYTES`.

        Raises:
            SegmentDamaged: the segment is shorter than the location says. Where it is long enough and fewer bytes came,
                that is Retryable.
            ValueError: the range is not inside the member.
        """
        start, size = member_range(location, offset, size_bytes)
        if not size:
            self.size_bytes(location.segment)
            return b""
        if size <= READ_BYTES:
            return self._objects.read(location.segment, start, size)
        return b"".join(self._objects.pieces(location.segment, start, size, READ_BYTES))

    def stream(self, location: MemberLocation, offset: int = 0, size_bytes: int | None = None) -> Iterator[bytes]:
        """See `SegmentStore.stream`; pieces of at most `PIECE_BYTES`."""
        start, size = member_range(location, offset, size_bytes)
        for got in self._objects.pieces(location.segment, start, size):
            for at in range(0, len(got), PIECE_BYTES):
                yield got[at : at + PIECE_BYTES]

    def index(self, key: str) -> list[bytes]:
        """See `SegmentStore.index`: two ranged GETs at most."""
        return read_index(*self._from_the_end(key))

    def journal_entry(self, key: str) -> bytes:
        """See `SegmentStore.journal_entry`: one GET."""
        read, size_bytes = self._from_the_end(key)
        member = read_member(read, 0, size_bytes)
        if member is None:
            raise SegmentDamaged("the journal segment is empty")
        body = read(member.offset, member.size_bytes)
        verify_body(member, body)
        return body

    def members(self, key: str) -> Recovery:
        """See `SegmentStore.members`: from a copy on the temporary disk."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{layout.id_of(key)}{layout.SUFFIX}"
            with path.open("wb") as file:
                for piece in self._objects.pieces(key, 0, self.size_bytes(key)):
                    file.write(piece)
            return recover(path)

    def size_bytes(self, key: str) -> int:
        """See `SegmentStore.size_bytes`."""
        return self._objects.size_bytes(key)

    def _from_the_end(self, key: str) -> tuple[Callable[[int, int], bytes], int]:
        """A reader that has the segment's end already, and the segment's size."""
        tail, size_bytes = self._objects.end(key, TAIL_BYTES)
        tail_offset = size_bytes - len(tail)

        def read(offset: int, size: int) -> bytes:
            if offset >= tail_offset:
                return tail[offset - tail_offset : offset - tail_offset + size]
            return self._objects.read(key, offset, size)

        return read, size_bytes

    # ---- listing ----

    def keys(self, prefix: str = "") -> Iterator[SegmentKey]:
        """See `SegmentStore.keys`.

        Keys of one tenant are listed in the order of their days and ids; the tenants' are merged.
        """
        for key, _, _ in self._found(prefix):
            yield key

    def sized_keys(self) -> Iterator[tuple[SegmentKey, int]]:
        """See `SegmentStore.sized_keys`."""
        return ((key, size_bytes) for key, size_bytes, _ in self._found(""))

    def aged_keys(self) -> Iterator[tuple[SegmentKey, datetime]]:
        """See `SegmentStore.aged_keys`."""
        return ((key, put_at) for key, _, put_at in self._found(""))

    def newest_first(self) -> Iterator[SegmentKey]:
        """See `SegmentStore.newest_first`."""
        tenants = [folder for folder in self._folders("") if folder != layout.JOURNAL]
        days = heapq.merge(*map(self._days, tenants), reverse=True)
        for _, of_day in itertools.groupby(days, key=lambda found: found[0]):
            found = [key for _, folder in of_day for key, _, _ in self._listed(folder)]
            yield from sorted(found, key=layout.id_of, reverse=True)

    def _found(self, prefix: str) -> Iterator[_Found]:
        owners = [prefix.rstrip("/")] if prefix else self._folders("")
        return heapq.merge(*map(self._listed, owners), key=lambda found: layout.id_of(found[0]))

    def _listed(self, folder: str) -> Iterator[_Found]:
        """Keys, sizes and times below a folder, page by page in the server's order, which is that of the names."""
        root = f"{layout.SEGMENTS}/"
        with mapped_errors("list segments"):
            for page in obstore.list(self._objects.reading, f"{root}{folder}", chunk_size=1000):
                for found in page:
                    key = found["path"].removeprefix(root)
                    if layout.is_key(key):
                        yield SegmentKey(key), found["size"], found["last_modified"]

    def _days(self, tenant: str) -> Iterator[tuple[str, str]]:
        """The days of a tenant, newest first, each with its folder; listed a month at a time."""
        for year in reversed(self._folders(tenant)):
            for month in reversed(self._folders(f"{tenant}/{year}")):
                for day in reversed(self._folders(f"{tenant}/{year}/{month}")):
                    yield f"{year}/{month}/{day}", f"{tenant}/{year}/{month}/{day}"

    def _folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        with mapped_errors("list segments"):
            found = obstore.list_with_delimiter(self._objects.reading, f"{layout.SEGMENTS}/{folder}")
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])
