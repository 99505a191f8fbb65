"""Segments in a folder: put once by one process, read by range by many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from archive import layout
from archive.descriptors import Descriptors
from archive.framing import FramedSegment, frame_batch, frame_entry, member_range
from archive.segment_store import AdoptedMember, PreparedMember, PutSegment
from runtime.clock import Clock, SystemClock
from runtime.faults import reach
from runtime.metrics import ARCHIVED_BYTES
from schemas.identifiers import SegmentKey
from schemas.record import MemberLocation
from segments.disk import Disk, SystemDisk, mapped_errors
from segments.reader import read_index
from segments.recover import Recovery, recover
from segments.sweep import sweep_parts
from segments.tar import SegmentDamaged, read_member, verify_body
from segments.writer import SegmentWriter

PIECE_BYTES: Final = 1024 * 1024
DESCRIPTORS_MAX: Final = 256


class LocalSegmentStore:
    """`archive.segment_store.SegmentStore` in a folder. Reading is thread-safe; one thread puts.

    A segment appears whole: written as ``.part``, synced, renamed, its folder synced. Nothing is written by opening;
    the first put removes stale ``.part`` files and writes the README and the restore script into the root.
    """

    def __init__(self, archive_dir: Path, *, disk: Disk | None = None, clock: Clock | None = None) -> None:
        self._archive_dir = archive_dir
        self._disk = disk or SystemDisk()
        self._clock = clock or SystemClock()
        self._descriptors = Descriptors(DESCRIPTORS_MAX)
        #: Id of the newest segment; None until this process puts.
        self._latest: str | None = None

    # ---- writing ----

    def put(self, tenant: str, members: Sequence[PreparedMember | AdoptedMember]) -> PutSegment:
        """See `SegmentStore.put`."""
        key = layout.instance_key(tenant, self._next_id())
        framed = frame_batch(key, members)
        self._write(key, framed)
        return PutSegment(key=key, locations=framed.locations)

    def put_journal(self, entry: Mapping[str, object]) -> str:
        """See `SegmentStore.put_journal`."""
        key = layout.journal_key(self._next_id())
        self._write(key, frame_entry(key, entry))
        return key

    def delete(self, key: str) -> None:
        """See `SegmentStore.delete`."""
        path = layout.path_of(self._archive_dir, key)
        self._descriptors.forget(path)
        if path.exists():
            self._disk.remove(path)
            self._disk.sync_folder(path.parent)

    def read_state(self, name: str) -> bytes | None:
        """See `SegmentStore.read_state`."""
        try:
            return (self._archive_dir / layout.STATE / name).read_bytes()
        except FileNotFoundError:
            return None

    def put_state(self, name: str, body: bytes) -> None:
        """See `SegmentStore.put_state`."""
        folder = self._archive_dir / layout.STATE
        self._disk.make_folder(folder)
        self._disk.replace(folder / name, body)

    def now(self) -> datetime:
        """See `SegmentStore.now`."""
        self.put_state(layout.CLOCK, b"")
        return datetime.fromtimestamp((self._archive_dir / layout.STATE / layout.CLOCK).stat().st_mtime, UTC)

    def sweep(self) -> int:
        """See `SegmentStore.sweep`: ``.part`` files that no living process writes."""
        folder = layout.segments_folder(self._archive_dir)
        return sweep_parts(self._disk, folder) if folder.is_dir() else 0

    def _next_id(self) -> str:
        """An id after those of all segments, whatever the clock says: rebuild replays in the order of ids."""
        if self._latest is None:
            self._prepare()
        candidate = self._clock.new_id()
        self._latest = layout.later_id(candidate, self._latest) if self._latest else candidate
        return self._latest

    def _prepare(self) -> None:
        self._disk.make_folder(layout.segments_folder(self._archive_dir))
        self.sweep()
        for name, content in layout.beside():
            path = self._archive_dir / name
            if not path.exists() or path.read_bytes() != content:
                self._disk.replace(path, content)
        self._latest = _latest_id(layout.segments_folder(self._archive_dir))

    def _write(self, key: str, framed: FramedSegment) -> None:
        path = layout.path_of(self._archive_dir, key)
        self._disk.make_folder(path.parent)
        writer = SegmentWriter(self._disk, path.with_name(f"{path.name}.part"), segment=layout.id_of(key))
        try:
            writer.append_encoded(framed.members)
            writer.seal(framed.index_lines)
            reach("store.written")
            writer.sync()
            reach("store.synced")
            self._disk.rename(writer.path, path)
        except BaseException:
            writer.abandon()
            raise
        reach("store.renamed")
        writer.close()
        try:
            self._disk.sync_folder(path.parent)
        except BaseException:
            self._disk.remove(path)  # it will be put again: nobody may find it twice
            raise
        ARCHIVED_BYTES.inc(writer.size_bytes)

    # ---- reading ----

    def read(self, location: MemberLocation, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """See `SegmentStore.read`.

        Raises:
            SegmentDamaged: the segment is shorter than the location says.
            ValueError: the range is not inside the member.
        """
        start, size = member_range(location, offset, size_bytes)
        return self._read_at(location.segment, start, size)

    def stream(self, location: MemberLocation, offset: int = 0, size_bytes: int | None = None) -> Iterator[bytes]:
        """See `SegmentStore.stream`; pieces of at most `PIECE_BYTES`."""
        start, size = member_range(location, offset, size_bytes)
        for at in range(start, start + size, PIECE_BYTES):
            yield self._read_at(location.segment, at, min(PIECE_BYTES, start + size - at))

    def keys(self, prefix: str = "") -> Iterator[SegmentKey]:
        """See `SegmentStore.keys`."""
        found = self._keys((layout.segments_folder(self._archive_dir) / prefix).rglob(f"*{layout.SUFFIX}"))
        yield from sorted(found, key=layout.id_of)

    def sized_keys(self) -> Iterator[tuple[SegmentKey, int]]:
        """See `SegmentStore.sized_keys`."""
        for key in self.keys():
            try:
                yield key, self.size_bytes(key)
            except FileNotFoundError:  # collected meanwhile
                continue

    def aged_keys(self) -> Iterator[tuple[SegmentKey, datetime]]:
        """See `SegmentStore.aged_keys`."""
        for key in self.keys():
            try:
                changed_s = layout.path_of(self._archive_dir, key).stat().st_mtime
            except FileNotFoundError:  # collected meanwhile
                continue
            yield key, datetime.fromtimestamp(changed_s, UTC)

    def newest_first(self) -> Iterator[SegmentKey]:
        """See `SegmentStore.newest_first`."""
        root = layout.segments_folder(self._archive_dir)
        days = {path.relative_to(root).parts[1:]: None for path in root.glob("*/[0-9]*/[0-9]*/[0-9]*")}
        for day in sorted(days, reverse=True):
            found = self._keys(root.glob("/".join(("*", *day, f"*{layout.SUFFIX}"))))
            yield from sorted(found, key=layout.id_of, reverse=True)

    def index(self, key: str) -> list[bytes]:
        """See `SegmentStore.index`."""
        return read_index(lambda offset, size: self._read_at(key, offset, size), self.size_bytes(key))

    def journal_entry(self, key: str) -> bytes:
        """See `SegmentStore.journal_entry`."""
        size_bytes = self.size_bytes(key)
        member = read_member(lambda offset, size: self._read_at(key, offset, size), 0, size_bytes)
        if member is None:
            raise SegmentDamaged("the journal segment is empty")
        body = self._read_at(key, member.offset, member.size_bytes)
        verify_body(member, body)
        return body

    def members(self, key: str) -> Recovery:
        """See `SegmentStore.members`."""
        return recover(layout.path_of(self._archive_dir, key))

    def size_bytes(self, key: str) -> int:
        """See `SegmentStore.size_bytes`."""
        return layout.path_of(self._archive_dir, key).stat().st_size

    def _keys(self, paths: Iterable[Path]) -> Iterator[SegmentKey]:
        root = layout.segments_folder(self._archive_dir)
        return (SegmentKey(path.relative_to(root).as_posix()) for path in paths)

    def _read_at(self, key: str, offset: int, size: int) -> bytes:
        path = layout.path_of(self._archive_dir, key)
        with mapped_errors("read a segment"):
            descriptor = self._descriptors.get(path)
            data = os.pread(descriptor.number, size, offset)
            while len(data) < size and (more := os.pread(descriptor.number, size - len(data), offset + len(data))):
                data += more
        if len(data) < size:
            raise SegmentDamaged("the segment is shorter than its index says")
        return data

    def close(self) -> None:
        """See `SegmentStore.close`: the descriptors kept open."""
        self._descriptors.clear()


def _latest_id(folder: Path) -> str | None:
    """The greatest id in the newest folder of each tenant and in the journal."""
    newest: list[str] = []
    for owner in folder.iterdir():
        at = owner
        while below := sorted(path for path in at.iterdir() if path.is_dir()):
            at = below[-1]
        newest += [layout.id_of(path.name) for path in at.glob(f"*{layout.SUFFIX}")]
    return max(newest, default=None)
