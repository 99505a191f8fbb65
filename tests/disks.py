"""A disk that remembers what was done to it, so that a power cut can be replayed at every point.

`RecordingDisk` works on real files and records each operation. `power_cut` then builds the folder that a machine might
find after losing power behind any of them: what was synced is there; of everything else, data and entries of folders
alike, a `Loss` decides how much survived. A new file's entry is durable only after the sync of its folder, whatever was
synced in the file; a rename likewise.

`RecordingDisk(ignored=site)` leaves out the syncs of one place in the program: a test that still passes then shows that
it, or that sync, is worth nothing. `FailingDisk` has faults instead of a memory.
"""

from __future__ import annotations

import errno
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from segments.aligned import AlignedWriter, write_all
from segments.disk import Buffer, OpenFile, SystemDisk, SystemFile

#: Where in the program a sync was asked for: ``file`` or ``folder``, then the nearest functions, innermost first.
Site = tuple[str, ...]
_SITE_FUNCTIONS = 3
_PRODUCT = ("segments", "broker", "archive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation, in the order in which it was done."""

    kind: str
    path: Path = field(default_factory=Path)
    #: Of a file's content: which file, whatever its name is by now.
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    #: Rename: the new name. Note: what the test said.
    to: Path = field(default_factory=Path)
    note: object = None


class RecordingDisk(SystemDisk):
    """The machine's disk, with a record. Thread-safe."""

    def __init__(self, *, ignored: Site | None = None) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.sites: set[Site] = set()
        self._ignored = ignored
        self._inodes = 0
        self._named: dict[Path, int] = {}
        self._lock = threading.RLock()

    def note(self, what: object) -> None:
        """Record what the program promised at this point."""
        self._record(Operation(kind="note", note=what))

    def adopt(self, root: Path) -> None:
        """Record what is in `root` already, as durable."""
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                self._record(Operation(kind="folder", path=path))
            else:
                self._inodes += 1
                self._named[path] = self._inodes
                self._record(Operation(kind="create", path=path, inode=self._inodes))
                self._record(Operation(kind="write", inode=self._inodes, data=path.read_bytes()))
                self._record(Operation(kind="sync", inode=self._inodes))
        for folder in {path.parent for path in root.rglob("*")}:
            self._record(Operation(kind="sync_folder", path=folder))

    def create(self, path: Path) -> OpenFile:
        return self._recording(path, super().create)

    def create_uncached(self, path: Path) -> OpenFile:
        return self._recording(path, super().create_uncached)

    def reopen(self, path: Path) -> OpenFile:
        return _RecordingFile(self, super().reopen(path), self._named[path])

    def sync_folder(self, path: Path) -> None:
        if self.is_wanted("folder"):
            super().sync_folder(path)
            self._record(Operation(kind="sync_folder", path=path))

    def rename(self, old: Path, new: Path) -> None:
        with self._lock:
            super().rename(old, new)
            self._named[new] = self._named.pop(old)
            self._record(Operation(kind="rename", path=old, to=new))

    def remove(self, path: Path) -> None:
        with self._lock:
            if path.exists():
                super().remove(path)
                self._record(Operation(kind="remove", path=path))

    def is_wanted(self, what: str) -> bool:
        """Whether the sync (of a file or a folder) asked for by the caller is to be done."""
        site = _site(sys._getframe(2), what)
        self.sites.add(site)
        return site != self._ignored

    def _recording(self, path: Path, create: Callable[[Path], OpenFile]) -> OpenFile:
        with self._lock:
            file = create(path)
            self._inodes += 1
            self._record(Operation(kind="create", path=path, inode=self._inodes))
            self._named[path] = self._inodes
            return _RecordingFile(self, file, self._inodes)

    def _make_one_folder(self, path: Path) -> None:
        with self._lock:
            super()._make_one_folder(path)
            self._record(Operation(kind="folder", path=path))

    def _record(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)


class _RecordingFile:
    """An open file of a recording disk."""

    def __init__(self, disk: RecordingDisk, file: OpenFile, inode: int) -> None:
        self._disk = disk
        self._file = file
        self._inode = inode

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    def append(self, parts: Sequence[Buffer]) -> None:
        self._written(self._file.size_bytes, b"".join(parts))
        self._file.append(parts)

    def write_at(self, offset: int, data: Buffer) -> None:
        self._written(offset, bytes(data))
        self._file.write_at(offset, data)

    def truncate(self, size_bytes: int) -> None:
        self._disk._record(Operation(kind="truncate", inode=self._inode, offset=size_bytes))
        self._file.truncate(size_bytes)

    def sync(self) -> None:
        if self._disk.is_wanted("file"):
            self._file.sync()
            self._disk._record(Operation(kind="sync", inode=self._inode))

    def close(self) -> None:
        self._file.close()

    def _written(self, offset: int, data: bytes) -> None:
        self._disk._record(Operation(kind="write", inode=self._inode, offset=offset, data=data))


class FailingDisk(SystemDisk):
    """The machine's disk with faults that a test turns on and off, for files opened before and after."""

    def __init__(self) -> None:
        super().__init__()
        #: Bytes that may still be written before ENOSPC; None for no limit.
        self.space_bytes: int | None = None
        self.fails_sync = False
        self.fails_overwrite = False
        #: Called in the writing thread before each sync of a file.
        self.before_sync: Callable[[], None] = lambda: None

    def create(self, path: Path) -> OpenFile:
        return _FailingFile(self, self._create_locked(path))

    def create_uncached(self, path: Path) -> OpenFile:
        return _FailingFile(self, self._create_locked(path), AlignedWriter())

    def reopen(self, path: Path) -> OpenFile:
        return _FailingFile(self, self._opened(path))


class _FailingFile(SystemFile):
    """An open file of a failing disk: as on a real one, part of what does not fit is written."""

    def __init__(
        self, disk: FailingDisk, descriptor: int, write: Callable[[int, Sequence[Buffer], int], int] = write_all
    ) -> None:
        super().__init__(descriptor, write)
        self._disk = disk

    def append(self, parts: Sequence[Buffer]) -> None:
        space = self._disk.space_bytes
        data = b"".join(parts)
        if space is None or len(data) <= space:
            super().append(parts)
        else:
            super().append([data[:space]])
            self._fail("append", errno.ENOSPC)

    def write_at(self, offset: int, data: Buffer) -> None:
        if self._disk.fails_overwrite:
            self._fail("overwrite", errno.EIO)
        super().write_at(offset, data)

    def sync(self) -> None:
        self._disk.before_sync()
        if self._disk.fails_sync:
            self._fail("sync", errno.EIO)
        super().sync()

    def _fail(self, operation: str, code: int) -> None:
        with self._writing(operation):
            raise OSError(code, "on purpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What becomes of what was not synced. `rng` decides each case; without it, both shares are all or nothing."""

    keeps_entries: bool = False
    keeps_data: bool = False
    #: With `keeps_data`: no more than this.
    data_bytes_max: int = 1 << 62
    rng: random.Random | None = None

    def entries(self, pending: int) -> int:
        """How many of the operations on a folder survive, the oldest first."""
        return self.rng.randint(0, pending) if self.rng else pending * self.keeps_entries

    def data_bytes(self, pending: int) -> int:
        """How many bytes of what was written survive, the oldest first."""
        kept = self.rng.randint(0, pending) if self.rng else pending * self.keeps_data
        return min(kept, self.data_bytes_max)

    def is_extended(self) -> bool:
        """Whether the file has its new size all the same, with zeros for what is lost."""
        return self.rng is not None and self.rng.random() < 0.5


def losses(seed: int, *, random_ones: int = 3) -> list[Loss]:
    """The extremes, and some torn at random."""
    extremes = [Loss(keeps_entries=entries, keeps_data=data) for entries in (False, True) for data in (False, True)]
    extremes.append(Loss(keeps_entries=True, keeps_data=True, data_bytes_max=700))
    return extremes + [Loss(rng=random.Random(f"{seed}/{number}")) for number in range(random_ones)]


def power_cut(operations: Sequence[Operation], root: Path, target: Path, loss: Loss) -> None:
    """Build in `target` what is left of `root` after these operations and a power cut."""
    model = _Model(root)
    for operation in operations:
        model.apply(operation)
    target.mkdir(parents=True, exist_ok=True)
    for folder in sorted(model.folders_left(loss)):
        (target / folder.relative_to(root)).mkdir(parents=True, exist_ok=True)
    for path, content in model.files_left(loss):
        (target / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (target / path.relative_to(root)).write_bytes(content)


@dataclass
class _Content:
    """One file's bytes: what is durable, and what was written since."""

    durable: bytes = b""
    pending: list[Operation] = field(default_factory=list)

    def sync(self) -> None:
        self.durable = _written(self.durable, self.pending, sum(len(one.data) for one in self.pending))
        self.pending = []

    def left(self, loss: Loss) -> bytes:
        size = sum(len(one.data) for one in self.pending)
        left = _written(self.durable, self.pending, loss.data_bytes(size))
        ends = [one.offset + len(one.data) for one in self.pending if one.kind == "write"]
        return left.ljust(max(ends, default=0), b"\0") if loss.is_extended() else left


class _Model:
    """Folders and files with what is durable of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[int, _Content] = {}
        #: Durable entries: a file's inode, or 0 for a folder.
        self._entries: dict[Path, int] = {}
        #: Operations on each folder that were not synced, as (path removed, path added, inode).
        self._pending: dict[Path, list[tuple[Path | None, Path | None, int]]] = {}
        self._named: dict[Path, int] = {}
        #: Folders made under the record; others were there before it and are durable.
        self._made: set[Path] = set()

    def apply(self, one: Operation) -> None:
        if one.kind == "create":
            self._contents[one.inode] = _Content()
            self._change(None, one.path, one.inode)
        elif one.kind == "folder":
            self._change(None, one.path, 0)
            self._made.add(one.path)
        elif one.kind in ("write", "truncate"):
            self._contents[one.inode].pending.append(one)
        elif one.kind == "sync":
            self._contents[one.inode].sync()
        elif one.kind == "rename":
            self._change(one.path, one.to, self._named.pop(one.path))
        elif one.kind == "remove":
            self._change(one.path, None, self._named.pop(one.path))
        elif one.kind == "sync_folder":
            self._settle(one.path, len(self._pending.get(one.path, [])))

    def folders_left(self, loss: Loss) -> list[Path]:
        for folder in self._pending:
            self._settle(folder, loss.entries(len(self._pending[folder])))
        return [path for path, inode in self._entries.items() if inode == 0 and self._is_reachable(path)]

    def files_left(self, loss: Loss) -> Iterator[tuple[Path, bytes]]:
        for path, inode in self._entries.items():
            if inode and self._is_reachable(path):
                yield path, self._contents[inode].left(loss)

    def _change(self, removed: Path | None, added: Path | None, inode: int) -> None:
        if added is not None:
            self._named[added] = inode
        folder = (added or removed or Path()).parent
        self._pending.setdefault(folder, []).append((removed, added, inode))

    def _settle(self, folder: Path, count: int) -> None:
        pending = self._pending.get(folder, [])
        for removed, added, inode in pending[:count]:
            if removed is not None:
                self._entries.pop(removed, None)
            if added is not None:
                self._entries[added] = inode
        self._pending[folder] = pending[count:]

    def _is_reachable(self, path: Path) -> bool:
        below = (parent for parent in path.parents if self._root in parent.parents)
        return all(parent in self._entries for parent in below if parent in self._made)


def _written(content: bytes, pending: Sequence[Operation], budget_bytes: int) -> bytes:
    """The content with as much of what is pending as the budget allows; the last piece may be torn."""
    result = bytearray(content)
    for one in pending:
        if one.kind == "truncate":
            del result[one.offset :]
            continue
        piece = one.data[:budget_bytes]
        budget_bytes -= len(piece)
        if piece:
            result.extend(bytes(max(0, one.offset - len(result))))
            result[one.offset : one.offset + len(piece)] = piece
    return bytes(result)


def _site(frame: FrameType | None, what: str) -> Site:
    names = [what]
    while frame is not None and len(names) <= _SITE_FUNCTIONS:
        name = frame.f_code.co_qualname
        is_product = frame.f_globals.get("__name__", "").partition(".")[0] in _PRODUCT
        if is_product and name != names[-1]:  # a recursion is one place
            names.append(name)
        frame = frame.f_back
    return tuple(names)
