"""One file of the log while its process appends to it: a segment and its durable mark."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from broker.local.layout import DATA_SUFFIX, MARK_SUFFIX, FileName
from broker.local.mark import Mark
from runtime.errors import Retryable
from segments.disk import Disk
from segments.sweep import PART_SUFFIX
from segments.writer import EncodedMember, MemberSpan, SegmentWriter


class FileWriter:
    """Appends batches to a new file and publishes how far they are durable. Used by one thread.

    The file appears under its name only when it is locked and its mark exists, and its folder is synced before anything
    in it can be acknowledged: consumers never see a file whose writer they could wrongly take for dead.
    """

    def __init__(self, disk: Disk, folder: Path, name: FileName) -> None:
        """Create the file.

        Raises:
            FileExistsError: the name is taken; take the next.
            OutOfSpace, Retryable: nothing was left behind that matters.
        """
        self.name = str(name)
        self._disk = disk
        self._path = folder / f"{name}{DATA_SUFFIX}"
        self._mark_path = folder / f"{name}{MARK_SUFFIX}"
        self._mark = Mark()
        self._mark_file = disk.create(self._mark_path)
        part = self._path.with_name(self._path.name + PART_SUFFIX)
        try:
            self._mark_file.append([self._mark.encode()])
            self._segment = SegmentWriter(disk, part, segment=self.name, uncached=True)
            disk.rename(part, self._path)
            disk.sync_folder(folder)
        except Retryable:
            self._mark_file.close()
            for path in (part, self._path, self._mark_path):
                with suppress(Retryable):
                    disk.remove(path)
            raise

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._segment.size_bytes

    def append(self, members: Sequence[EncodedMember]) -> list[MemberSpan]:
        """Append members framed for `name`; not durable, not visible.

        Raises:
            OutOfSpace, Retryable: call `drop_tail`.
        """
        return self._segment.append_encoded(members)

    def sync(self) -> None:
        """Make what was appended durable; still not visible.

        Raises:
            OutOfSpace, Retryable: call `drop_tail`.
        """
        self._segment.sync()

    def publish_mark(self, messages: int) -> None:
        """Show consumers everything that was synced, `messages` more than before.

        Raises:
            OutOfSpace, Retryable: it is durable all the same; call `close`, and consumers recover the file.
        """
        self._write_mark(Mark(offset=self.size_bytes, messages=self._mark.messages + messages))

    def finish(self) -> None:
        """Seal the file, say that nothing more will come, and close it."""
        try:
            self._segment.seal()
            self._segment.sync()
        except Retryable:
            self.drop_tail()
            return
        self._end()

    def drop_tail(self) -> None:
        """After a failed write or sync: take back what is behind the mark, end the file there, and close it."""
        with suppress(Retryable):  # then the mark alone keeps consumers from it
            self._segment.truncate(self._mark.offset)
        self._end()
        if self._mark.offset == 0:
            for path in (self._mark_path, self._path):
                with suppress(Retryable):
                    self._disk.remove(path)

    def close(self) -> None:
        """Close the file as it is. Consumers find its writer gone and recover what is in it."""
        self._segment.close()
        self._mark_file.close()

    def _end(self) -> None:
        with suppress(Retryable):  # without the mark, consumers find the lock free and recover the file
            self._write_mark(Mark(offset=self._mark.offset, messages=self._mark.messages, finished=True))
        self.close()

    def _write_mark(self, mark: Mark) -> None:
        self._mark_file.write_at(0, mark.encode())
        self._mark = mark
