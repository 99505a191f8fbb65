"""The disk: the only way segments, log, archive and journal write files.

Kept small so that a test can put a recording disk in its place and replay a power cut at every point. Reading is not
here: readers use descriptors directly.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from runtime.errors import OutOfSpace, Retryable
from segments.aligned import AlignedWriter, write_all

Buffer = bytes | bytearray | memoryview

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class OpenFile(Protocol):
    """A file being written by this process. A new one is locked (flock) until it is closed or the process dies."""

    @property
    def size_bytes(self) -> int:
        """Where the next append goes."""

    def append(self, parts: Sequence[Buffer]) -> None:
        """Write the parts at the end, one after the other, without joining them in memory."""

    def write_at(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes that were appended before."""

    def truncate(self, size_bytes: int) -> None:
        """Cut the file; the next append goes there."""

    def sync(self) -> None:
        """Make everything written durable (fdatasync).

        Raises:
            OutOfSpace, Retryable: some of it is lost and nobody can say which; abandon the file, write another.
        """

    def close(self) -> None:
        """Release the descriptor and the lock; makes nothing durable. May be called again."""


class Disk(Protocol):
    """Operations on files and folders. Each raises OutOfSpace or Retryable; nothing is durable without a sync."""

    def create(self, path: Path) -> OpenFile:
        """A new, empty, locked file. FileExistsError if `path` exists."""

    def create_uncached(self, path: Path) -> OpenFile:
        """The same for a file that is synced as soon as it is appended to: past the page cache where that is possible.

        It takes `aligned.ALIGNED_BYTES` of memory until it is closed.
        """

    def reopen(self, path: Path) -> OpenFile:
        """An existing file to be overwritten in place, not locked. FileNotFoundError if there is none."""

    def sync_folder(self, path: Path) -> None:
        """Make the entries of a folder durable: files created, renamed and removed in it."""

    def make_folder(self, path: Path) -> None:
        """Create a folder and its missing parents, all durable."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in the same file system; atomic, durable after the folder's sync."""

    def replace(self, path: Path, content: bytes) -> None:
        """Make a small state file hold `content`, durable on return: the old content or the new, never a mixture."""

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""


class SystemFile:
    """An `OpenFile` on a descriptor."""

    def __init__(self, descriptor: int, write: Callable[[int, Sequence[Buffer], int], int] = write_all) -> None:
        """`write` takes descriptor, parts and offset of an append, and gives the number of bytes."""
        self._descriptor = descriptor
        self._write = write
        self._size_bytes = os.fstat(descriptor).st_size
        self._abandoned = False

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def append(self, parts: Sequence[Buffer]) -> None:
        with self._writing("append"):
            self._size_bytes += self._write(self._descriptor, parts, self._size_bytes)

    def write_at(self, offset: int, data: Buffer) -> None:
        with self._writing("overwrite"):
            write_all(self._descriptor, [data], offset)

    def truncate(self, size_bytes: int) -> None:
        # Also allowed after a failure: it takes back what is half written.
        with mapped_errors("truncate"):
            os.ftruncate(self._descriptor, size_bytes)
        self._size_bytes = size_bytes

    def sync(self) -> None:
        with self._writing("sync"):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def _writing(self, operation: str) -> Iterator[None]:
        """Refuse to go on with a file of which some write or sync has failed."""
        if self._abandoned or self._descriptor < 0:
            raise Retryable(f"cannot {operation}: the file was abandoned or closed")
        try:
            with mapped_errors(operation):
                yield
        except Retryable:
            self._abandoned = True
            raise


class SystemDisk:
    """The machine's own disk. Thread-safe."""

    def __init__(self) -> None:
        self._durable_folders: set[Path] = set()

    def create(self, path: Path) -> OpenFile:
        return SystemFile(self._create_locked(path))

    def create_uncached(self, path: Path) -> OpenFile:
        return SystemFile(self._create_locked(path), AlignedWriter())

    def reopen(self, path: Path) -> OpenFile:
        return SystemFile(self._opened(path))

    def sync_folder(self, path: Path) -> None:
        with mapped_errors("sync folder"):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        if path in self._durable_folders and path.is_dir():
            return
        if not path.is_dir():
            self.make_folder(path.parent)
            self._make_one_folder(path)
        # Also for one that was there: whoever made it may have died before this line. No need to go further up: each
        # level is synced before the next is made.
        self.sync_folder(path.parent)
        self._durable_folders.add(path)

    def rename(self, old: Path, new: Path) -> None:
        with mapped_errors("rename"):
            old.rename(new)

    def replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(path.name + ".part")
        self.remove(temporary)
        file = self.create(temporary)
        try:
            file.append([content])
            file.sync()
            self.rename(temporary, path)
            self.sync_folder(path.parent)
        finally:
            file.close()

    def remove(self, path: Path) -> None:
        with mapped_errors("remove"):
            path.unlink(missing_ok=True)

    def _make_one_folder(self, path: Path) -> None:
        with mapped_errors("make folder"):
            path.mkdir(exist_ok=True)

    def _opened(self, path: Path) -> int:
        with mapped_errors("open"):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def _create_locked(self, path: Path) -> int:
        with mapped_errors("create"):
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if is_named(descriptor, path):
                    return descriptor
                # Between creation and lock a sweep took the file for an orphan and removed it.
                os.close(descriptor)


def is_named(descriptor: int, path: Path) -> bool:
    """Whether `path` still leads to the file behind `descriptor`."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def is_abandoned(descriptor: int) -> bool:
    """Whether the process that wrote this file has closed it or died: nobody holds its lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


@contextmanager
def mapped_errors(operation: str) -> Iterator[None]:
    """Map the system's errors into the product's tree; a missing or an existing file keeps its own error.

    Raises:
        OutOfSpace: ENOSPC or EDQUOT.
        Retryable: EIO and every other error.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        kind = OutOfSpace if error.errno in _NO_SPACE else Retryable
        raise kind(f"cannot {operation}: {errno.errorcode.get(error.errno or 0, 'unknown error')}") from error
