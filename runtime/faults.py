"""Named points at which a test may kill the process, as `kill -9` would.

Two ways to arm a point, both for tests only; without either variable a point costs one comparison:

* ``SANSFILM_FAULT=worker.put:3`` kills this process the third time it reaches ``worker.put``.
* ``SANSFILM_FAULT_DIR=/folder`` kills whichever process reaches a point for which the folder holds a file of that name;
  the file is removed first, so that exactly one process dies. A running system can be armed this way at any time.

The names follow the steps of docs/ARCHITECTURE.md; `POINTS` and `REGION_POINTS` are complete, and the
crash tests visit every one of them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
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
#: Points that only a region has.
RegionPoint = Literal[
    "forwarder.claim_shipped",
    "forwarder.published",
    "forwarder.delivered",
    "forwarder.freed",
    "collector.condemned",
    "collector.journaled",
    "collector.deleted",
    "relay.published",
    "relay.deleted",
    "tide.raised",
    "compactor.put",
    "compactor.journaled",
    "compactor.swapped",
]
#: Points of the embedded form, every one of which `sansfilm up` passes.
POINTS: Final[tuple[str, ...]] = get_args(Point)
REGION_POINTS: Final[tuple[str, ...]] = get_args(RegionPoint)
VARIABLE: Final = "SANSFILM_FAULT"
FOLDER_VARIABLE: Final = "SANSFILM_FAULT_DIR"


class _Countdown:
    """The point to die at, and how many passes remain."""

    def __init__(self, setting: str) -> None:
        self.point, _, count = setting.partition(":")
        self.remaining = int(count or 1)

    def passes(self, point: str) -> bool:
        self.remaining -= point == self.point
        return point == self.point and self.remaining == 0


_countdown = _Countdown(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
_folder = Path(os.environ[FOLDER_VARIABLE]) if os.environ.get(FOLDER_VARIABLE) else None
_armed = _countdown is not None or _folder is not None


def reach(point: Point | RegionPoint) -> None:
    """Note that the program is at `point`; it dies here if a test armed it."""
    if not _armed:
        return
    if (_countdown is not None and _countdown.passes(point)) or (_folder is not None and _claims(_folder / point)):
        os.kill(os.getpid(), signal.SIGKILL)


def _claims(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True
