"""Small disks that can be filled: file systems in memory, which this process and its children alone see."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of unshare(2)
_BLOCK = bytes(65536)


class SmallDisk:
    """One of them, with a file that takes all the room."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free at this moment."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disks(folders: Sequence[Path], *, size_bytes: int) -> Iterator[Mapping[Path, SmallDisk]]:
    """A disk of its own for each folder; none where this process may not mount (that needs root)."""
    if not _has_own_mounts():
        yield {}
        return
    with ExitStack() as stack:
        for folder in folders:
            folder.mkdir(parents=True)
            _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder))
            stack.callback(_run, "umount", "--lazy", str(folder))
        yield {folder: SmallDisk(folder) for folder in folders}


def _has_own_mounts() -> bool:
    """Leave the machine's mount namespace for a copy, for good."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        assert ctypes.get_errno() == errno.EPERM, os.strerror(ctypes.get_errno())
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
