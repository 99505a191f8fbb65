"""Named points at which a test may kill the process, as `kill -9` would.

``SANSFILM_FAULT=worker.put:3`` kills this process the third time it reaches ``worker.put``. Without the variable a
point costs one comparison. The names follow the steps of docs/ARCHITECTURE.md; `POINTS` is complete, and the crash
matrix visits every one of them.
"""

from __future__ import annotations

import os
import signal
from typing import Final, Literal, get_args

Point = Literal[
    "edge.associated",
    "edge.received",
    "log.appended",
    "log.synced",
    "log.marked",
    "edge.acknowledged",
    "worker.taken",
    "worker.prepared",
    "store.written",
    "store.synced",
    "store.renamed",
    "worker.put",
    "journal.written",
    "catalog.inserted",
    "catalog.committed",
    "worker.committed",
    "log.position_written",
    "log.deleted",
]
POINTS: Final[tuple[str, ...]] = get_args(Point)
VARIABLE: Final = "SANSFILM_FAULT"


class _Armed:
    """The point to die at and how many passes remain; nothing is armed in production."""

    def __init__(self, setting: str) -> None:
        self.point, _, count = setting.partition(":")
        self.remaining = int(count or 1)


_armed = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def reach(point: Point) -> None:
    """Note that the program is at `point`; dies here if a test armed it."""
    if _armed is None or _armed.point != point:
        return
    _armed.remaining -= 1
    if _armed.remaining == 0:
        os.kill(os.getpid(), signal.SIGKILL)
