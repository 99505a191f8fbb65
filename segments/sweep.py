"""Removing what a dead process left half written."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from segments.disk import Disk, is_named

PART_SUFFIX = ".part"


def sweep_parts(disk: Disk, folder: Path) -> int:
    """Remove every ``.part`` below `folder` that no living process is writing; gives their number.

    A writer holds the lock of its file, so this may run while other processes receive.
    """
    return sum(remove_orphan(disk, path) for path in folder.rglob("*" + PART_SUFFIX))


def remove_orphan(disk: Disk, path: Path) -> bool:
    """Remove a file that no living process is writing; whether it was one.

    The lock is held while the file is removed: a process that is just creating it waits, finds it gone and creates it
    again.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # renamed into place meanwhile
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_orphan = is_named(descriptor, path)
        if is_orphan:
            disk.remove(path)
        return is_orphan
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
