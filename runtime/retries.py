"""Repeats a step while a passing fault lasts: growing pauses with jitter, bounded, ended at once by a stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from runtime import metrics
from runtime.errors import Retryable
from runtime.logs import get_logger

_FIRST_WAIT_S = 0.1
T = TypeVar("T")


class Stopped(Exception):
    """The process was told to stop while a step could not succeed; what it was about stays uncommitted in the log."""


def persist(step: Callable[[], T], *, name: str, stop: threading.Event, wait_max_s: float) -> T:
    """Run `step` until it succeeds; gives what it gives.

    Raises:
        Stopped: `stop` was set while the fault lasted.
        Exception: whatever else `step` raises, at once.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return step()
        except Retryable as error:
            metrics.BATCH_RETRIES.inc()
            get_logger().warning("step_failed", step=name, error=str(error), retry_in_s=round(wait_s, 2))
        if stop.wait(wait_s * random.uniform(0.5, 1.0)):
            raise Stopped
        wait_s = min(wait_s * 2, wait_max_s)
