"""Waiting on conditions, with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.01


def until(condition: Callable[[], T], *, timeout_s: float = 20.0, what: str = "the condition") -> T:
    """The first true value of `condition`; fails the test when there is none before the deadline."""
    never = threading.Event()
    ends_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > ends_s:
            raise AssertionError(f"{what} did not come true within {timeout_s:g} s")
        never.wait(_POLL_S)
    return value
