"""The data folder: ours alone, writable, not full. Checked once, before anything starts."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from runtime.errors import Misconfigured

_PROBE_BYTES = 1024 * 1024


class DataFolder:
    """`data_dir`, locked for this process until `close`.

    Raises:
        Misconfigured: it cannot be made or written, its disk is full, or another instance holds it.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.absolute()
        _make(self.path, "run", "logs")
        self._lock = _lock(self.path)
        try:
            _probe(self.path)
        except BaseException:
            self.close()
            raise

    def free_bytes(self) -> int:
        """Bytes free on its disk."""
        return shutil.disk_usage(self.path).free

    def close(self) -> None:
        """Let go of the lock; children that inherited it hold it no longer either."""
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


def is_locked(data_dir: Path) -> bool:
    """Whether an instance runs on this folder now."""
    try:
        lock = os.open(data_dir / "run" / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def make_private(path: Path) -> None:
    """Make the folder `path` if there is none: for us alone, as it will hold names of patients.

    Raises:
        Misconfigured: it cannot be made.
    """
    _make(path)


def is_readable_by_others(path: Path) -> bool:
    """Whether others than its owner's group may list a folder."""
    return bool(path.stat().st_mode & 0o007)


def _make(path: Path, *below: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in below:
            (path / name).mkdir(exist_ok=True)
    except OSError as error:
        raise Misconfigured(_sentence(path, error)) from error


def _lock(path: Path) -> int:
    try:
        lock = os.open(path / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(_sentence(path, error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Misconfigured(
            f"sansfilm runs already on the folder {path}: stop it first, or set SANSFILM_DATA_DIR to another one"
        ) from error
    return lock


def _probe(path: Path) -> None:
    """Write, sync and remove a megabyte: what every role is about to do."""
    probe = path / "run" / "probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Misconfigured(_sentence(path, error)) from error
    finally:
        with suppress(OSError):
            probe.unlink()


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of the folder {path} is full: free some space, then start again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"the folder {path} cannot be written: change its permissions, or set SANSFILM_DATA_DIR to another one"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} is not a folder: remove what is there, or set SANSFILM_DATA_DIR to another one"
    return f"the folder {path} cannot be used ({os.strerror(error.errno or 0)})"
