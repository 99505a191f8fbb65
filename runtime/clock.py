"""Time and identity, passed in so that tests decide them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import uuid_utils


class Clock(Protocol):
    """Where a process takes time and identifiers from."""

    def now(self) -> datetime:
        """The wall clock, UTC."""

    def monotonic_s(self) -> float:
        """Seconds for measuring spans and deadlines."""

    def new_id(self) -> str:
        """A UUIDv7 (RFC 9562): unique, and ordered by time within a process."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def new_id(self) -> str:
        return str(uuid_utils.uuid7())


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with microseconds and ``Z``; sorts as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
