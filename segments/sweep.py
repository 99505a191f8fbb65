"""Removing what a dead process left half written."""

from __future__ import annotations

import os
from pathlib import Path

from segments.disk import Disk, is_abandoned

PART_SUFFIX = ".part"


def sweep_parts(disk: Disk, folder: Path) -> int:
    """Remove every ``.part`` below `folder` that no living process is writing; gives their number.

    A writer holds the lock of its file, so this may run while other processes receive.
    """
    swept = 0
    for path in folder.rglob("*" + PART_SUFFIX):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # renamed into place meanwhile
            continue
        try:
            if is_abandoned(descriptor):
                disk.remove(path)
                swept += 1
        finally:
            os.close(descriptor)
    return swept
