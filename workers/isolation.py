"""Lets batches of several lanes be in flight side by side, and a suspicious message alone in the whole process.

Whoever dies with others in flight would be blamed together with them: a lane that isolates waits until nothing else is
being prepared, put or committed, and the others wait for its one message.
"""

from __future__ import annotations

import threading
from collections import deque

from runtime.retries import Stopped

_STOP_LOOK_S = 0.25


class Isolation:
    """Who is in flight. Admits in the order of asking, so that nobody waits for more than who asked before."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: deque[object] = deque()
        self._in_flight = 0
        self._is_alone = False

    def enter(self, stop: threading.Event, *, alone: bool = False) -> None:
        """Wait until this batch may be in flight: beside others, or `alone`. Each `enter` is followed by a `leave`.

        Raises:
            Stopped: `stop` was set meanwhile; nothing is to be left.
        """
        turn = object()
        with self._changed:
            self._turns.append(turn)
            try:
                while self._turns[0] is not turn or self._is_alone or (alone and self._in_flight):
                    if stop.is_set():
                        raise Stopped
                    self._changed.wait(_STOP_LOOK_S)
                self._in_flight += 1
                self._is_alone = alone
            finally:
                self._turns.remove(turn)
                self._changed.notify_all()

    def leave(self) -> None:
        """One that was in flight is committed, or given up. From any thread."""
        with self._changed:
            self._in_flight -= 1
            self._is_alone = False
            self._changed.notify_all()
