"""The life of a process: signals become an event, shutdown steps share one deadline, children die with their parent.

A role runs until `stop` is set, then stops → drains → syncs → commits → closes before one `Deadline`. The first SIGTERM
or SIGINT asks for that; the second one ends the process at once, which is safe: nothing acknowledged is only in memory.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
FORCED_EXIT_CODE = 130
#: What asks a process to stop. SIGHUP: its terminal went away; under nohup it stays ignored.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Deadline:
    """A moment by which several steps together must be done; each step asks what is left.

    >>> deadline = Deadline(25.0)
    >>> worker.join(deadline.remaining_s())
    """

    def __init__(self, timeout_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._ends_s = monotonic_s() + timeout_s

    def remaining_s(self) -> float:
        """Seconds left, never negative: fit for any wait."""
        return max(0.0, self._ends_s - self._monotonic_s())

    @property
    def passed(self) -> bool:
        return self.remaining_s() == 0.0


def stop_on_signals(*, ignore_interrupt: bool = False) -> threading.Event:
    """An event that the first of `STOP_SIGNALS` sets; the second one ends the process with `FORCED_EXIT_CODE`.

    Call from the main thread. With `ignore_interrupt` only SIGTERM counts: a terminal's Ctrl-C, or its end, reaches the
    whole process group, and the supervisor alone decides in which order its children stop.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(FORCED_EXIT_CODE)
        stop.set()

    for number in STOP_SIGNALS:
        if number == signal.SIGTERM or not ignore_interrupt:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, on_signal)
        else:
            signal.signal(number, signal.SIG_IGN)
    return stop


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when its parent ends, however it ends. Call first in a forked child.

    `parent_pid` is the parent as it knew itself before the fork: had it died in between, this process ends here.
    On systems without prctl(2) a thread watches the parent instead, four times a second.
    """
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(FORCED_EXIT_CODE)
        return
    threading.Thread(target=_watch, args=(parent_pid,), name="parent-watch", daemon=True).start()


def name_process(name: str) -> None:
    """Give this process a name of its own in ps and top, where the system allows it; 15 bytes are shown."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(0.25)
    os._exit(FORCED_EXIT_CODE)
