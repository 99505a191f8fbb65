"""One file of the log as a consumer sees it: only what is durable, each message verified, damage set aside."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from broker.local.layout import DATA_SUFFIX, MARK_SUFFIX, FileName, stream_of
from broker.local.mark import MARK_BYTES, Mark
from broker.local.positions import Committed
from broker.log import Position, Taken
from runtime.errors import Retryable
from runtime.logs import get_logger
from schemas.message import Lane, Message, MessageAttributes
from segments.disk import Disk, is_abandoned
from segments.recover import TornKind, TornPiece, keep_torn, next_member, torn_piece
from segments.tar import Member, SegmentDamaged, read_member, verify_body


class FileReader:
    """Reads one file forward from what is committed. Used by one thread; holds descriptors only while it reads.

    A file *ends* when its writer said so in the mark, or when its writer is gone: then everything in the file that
    verifies is given, behind the mark too.
    """

    def __init__(self, *, disk: Disk, lane: Lane, folder: Path, name: FileName, committed: Committed) -> None:
        self.name = name
        self.committed = committed
        self._disk = disk
        self._stream = stream_of(lane, name)
        self._path = folder / f"{name}{DATA_SUFFIX}"
        self._mark_path = folder / f"{name}{MARK_SUFFIX}"
        self._descriptor = -1
        self._mark_descriptor = -1
        self._mark = Mark()
        #: Where reading may go, and whether that will ever grow.
        self._limit = 0
        self._ended = False
        #: Everything up to the end was taken; nothing more comes.
        self._exhausted = False
        #: A damaged piece could not be copied: the file must stay.
        self._holds_damage = False
        self._at = committed
        #: Taken and not committed.
        self._outstanding: deque[Committed] = deque()

    @property
    def is_exhausted(self) -> bool:
        """Whether everything that will ever be in the file was taken."""
        return self._exhausted

    @property
    def is_done(self) -> bool:
        """Whether everything was taken and committed, and nothing in the file is needed any more."""
        return self._exhausted and not self._outstanding and not self._holds_damage

    @property
    def uncommitted_bytes(self) -> int:
        """Bytes behind the committed offset, as far as is known."""
        if self._exhausted and not self._outstanding:
            return 0
        return max(0, self._refreshed_limit(eagerly=True) - self.committed.next_offset)

    @property
    def lag_messages(self) -> int:
        """Durable messages behind the committed offset."""
        if self._exhausted and not self._outstanding:
            return 0
        if self._refreshed_limit(eagerly=True) <= self.committed.next_offset:
            return 0
        return max(1, self._messages() - self.committed.messages)

    def take(self, *, max_messages: int, max_bytes: int, at_least_one: bool) -> Iterator[Taken]:
        """Messages after the last one taken, within the bounds; the first regardless of its size if asked."""
        size_bytes = 0
        count = 0
        while count < max_messages and (member := self._next()) is not None:
            size_bytes += member.size_bytes
            if size_bytes > max_bytes and not (at_least_one and count == 0):
                return
            if (taken := self._taken(member)) is not None:
                count += 1
                yield taken
            else:
                size_bytes -= member.size_bytes

    def commit(self, next_offset: int) -> None:
        """Everything before `next_offset` is done; going back is ignored."""
        while self._outstanding and self._outstanding[0].next_offset <= next_offset:
            self.committed = self._outstanding.popleft()
        if next_offset > self.committed.next_offset:  # taken by an earlier consumer of the group
            count = self.committed.messages + self._count(self.committed.next_offset, next_offset)
            self.committed = Committed(next_offset=next_offset, messages=count)
            if self._at.next_offset < next_offset:
                self._move_to(self.committed)
        self._settle()

    def rewind(self) -> None:
        """Forget what was taken and not committed."""
        self._outstanding.clear()
        self._move_to(self.committed)

    def remove(self) -> None:
        """Delete the file and its mark; durable after the folder's sync."""
        self.close()
        self._disk.remove(self._mark_path)
        self._disk.remove(self._path)

    def close(self) -> None:
        """Release descriptors; the reader opens them again when it needs them."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._close_mark()

    def _next(self) -> Member | None:
        """The next whole member; the cursor moves over damage, not over the member."""
        while not self._exhausted:
            if self._at.next_offset >= self._refreshed_limit():
                if self._ended:
                    self._exhaust()
                return None
            try:
                member = read_member(self._read, self._at.next_offset, self._limit)
            except SegmentDamaged:
                member = None
            if member is None:
                self._skip_damage()
            elif member.is_own:
                self._move_to(Committed(next_offset=member.next_offset, messages=self._at.messages))
            else:
                return member
        return None

    def _taken(self, member: Member) -> Taken | None:
        """The member as a message, the cursor behind it; None if it was set aside."""
        value = self._read(member.offset, member.size_bytes)
        try:
            verify_body(member, value)
            attributes = MessageAttributes.from_headers(member.provenance)
        except SegmentDamaged:
            self._skip_damage()
            return None
        except ValueError:  # whole, but no message this version knows
            self._set_aside(member.header_offset, member.next_offset, TornKind.CORRUPT)
            return None
        self._move_to(Committed(next_offset=member.next_offset, messages=self._at.messages + 1))
        self._outstanding.append(self._at)
        position = Position(stream=self._stream, offset=member.header_offset, next_offset=member.next_offset)
        return Taken(message=Message(attributes=attributes, value=value), position=position)

    def _skip_damage(self) -> None:
        """Set aside everything up to the next member that verifies, or up to the limit."""
        start = self._at.next_offset
        following = next_member(self._opened(), str(self.name), start + 1, self._limit)
        if following is not None:
            self._set_aside(start, following.header_offset, TornKind.CORRUPT)
            return
        # What was marked had been synced: its loss is no torn tail. Behind the mark nothing was ever acknowledged.
        marked = min(max(start, self._mark.offset), self._limit)
        self._set_aside(start, marked, TornKind.CORRUPT)
        self._set_aside(marked, self._limit, TornKind.TAIL)

    def _set_aside(self, start: int, end: int, kind: TornKind) -> None:
        piece = torn_piece(self._opened(), start, end, kind)
        if piece is not None:
            self._keep(piece)
        elif kind is TornKind.CORRUPT and end > start:
            get_logger().error("segment_zeroed", segment=self._path.name, offset=start, size_bytes=end - start)
        self._move_to(Committed(next_offset=end, messages=self._at.messages))
        self._settle()

    def _keep(self, piece: TornPiece) -> None:
        try:
            keep_torn(self._disk, self._path, piece)
        except Retryable as error:
            self._holds_damage = True
            get_logger().error("segment_torn_not_copied", segment=self._path.name, error=str(error))

    def _settle(self) -> None:
        """With nothing outstanding, damage and the end that were passed are done too."""
        if not self._outstanding and self._at.next_offset > self.committed.next_offset:
            self.committed = self._at

    def _move_to(self, at: Committed) -> None:
        self._at = at
        self._exhausted = self._exhausted and at.next_offset >= self._limit

    def _exhaust(self) -> None:
        self._exhausted = True
        self._settle()
        self.close()

    def _refreshed_limit(self, *, eagerly: bool = False) -> int:
        """How far the file may be read now; unless `eagerly`, looked at only when everything known was read."""
        if not self._ended and (eagerly or self._limit <= self._at.next_offset):
            try:
                self._look(self._at.next_offset if not eagerly else sys.maxsize)
            except FileNotFoundError:  # its writer could not write into it and took it back
                self._ended, self._limit = True, self._at.next_offset
        return self._limit

    def _look(self, enough: int) -> None:
        """Read the mark; if it does not reach beyond `enough`, see whether its writer is gone."""
        self._read_mark()
        self._ended, self._limit = self._mark.finished, self._mark.offset
        if not self._ended and self._limit <= enough and is_abandoned(self._opened()):
            # With the lock free nobody writes any more, so what the mark says now is final.
            self._read_mark()
            self._ended = True
            self._limit = self._mark.offset if self._mark.finished else os.fstat(self._descriptor).st_size
        if self._ended:
            self._close_mark()

    def _read_mark(self) -> None:
        """A missing or unreadable mark leaves the last one."""
        if self._mark_descriptor < 0:
            with suppress(FileNotFoundError):
                self._mark_descriptor = os.open(self._mark_path, os.O_RDONLY | os.O_CLOEXEC)
        if self._mark_descriptor >= 0:
            self._mark = Mark.decode(os.pread(self._mark_descriptor, MARK_BYTES, 0)) or self._mark

    def _close_mark(self) -> None:
        if self._mark_descriptor >= 0:
            os.close(self._mark_descriptor)
            self._mark_descriptor = -1

    def _messages(self) -> int:
        """Messages up to the limit; counted if no mark says it."""
        if self._limit == self._mark.offset:
            return self._mark.messages
        start = max(self._mark.offset, self.committed.next_offset)
        known = self._mark.messages if start == self._mark.offset else self.committed.messages
        return known + self._count(start, self._limit)

    def _count(self, start: int, end: int) -> int:
        """Messages between two offsets by their headers alone; damage ends the count."""
        count, at = 0, start
        with suppress(SegmentDamaged):
            while (member := read_member(self._read, at, end)) is not None:
                count += not member.is_own
                at = member.next_offset
        return count

    def _read(self, offset: int, size_bytes: int) -> bytes:
        return os.pread(self._opened(), size_bytes, offset)

    def _opened(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            # The file was written past the page cache: read further ahead of what comes from the disk now.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self._descriptor
