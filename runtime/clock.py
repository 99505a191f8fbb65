"""Time and identity, passed in so that tests decide them.

A test makes the clock of a running process jump with ``SANSFILM_CLOCK_FILE=/file``: the file holds the seconds by which
that process is ahead, and may be written at any time. Without the variable it costs one comparison.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import uuid_utils


class Clock(Protocol):
    """Where a process takes time and identifiers from."""

    def now(self) -> datetime:
        """The wall clock, UTC."""

    def monotonic_s(self) -> float:
        """Seconds for measuring spans and deadlines."""

    def new_id(self) -> str:
        """A UUIDv7 (RFC 9562): unique, and ordered by time within a process."""


FILE_VARIABLE: Final = "SANSFILM_CLOCK_FILE"
_file = Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC) if _file is None else datetime.now(UTC) + _jump(_file)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def new_id(self) -> str:
        if _file is None:
            return str(uuid_utils.uuid7())
        return str(uuid_utils.uuid7(nanoseconds=int(self.now().timestamp() * 1e9)))


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with microseconds and ``Z``; sorts as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _jump(file: Path) -> timedelta:
    """How far the process is ahead; not at all while the file is missing or being written."""
    try:
        return timedelta(seconds=float(file.read_text()))
    except (FileNotFoundError, ValueError):
        return timedelta()
