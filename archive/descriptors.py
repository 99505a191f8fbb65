"""Open descriptors of segments, kept for positioned reads: bounded, thread-safe, the least recently used goes first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path


class Descriptor:
    """A file open for positioned reads; closed when the last thread that uses it lets go."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if (number := getattr(self, "number", -1)) >= 0:
            os.close(number)


class Descriptors:
    """At most `open_max` files beside those being read at this moment."""

    def __init__(self, open_max: int) -> None:
        self._open_max = open_max
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Descriptor] = OrderedDict()

    def get(self, path: Path) -> Descriptor:
        """The descriptor of `path`. FileNotFoundError if there is no such file."""
        with self._lock:
            if (kept := self._open.get(path)) is not None:
                self._open.move_to_end(path)
                return kept
        fresh = Descriptor(path)
        with self._lock:
            self._open[path] = fresh
            if len(self._open) > self._open_max:
                self._open.popitem(last=False)
        return fresh

    def forget(self, path: Path) -> None:
        """Do not serve `path` any longer."""
        with self._lock:
            self._open.pop(path, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._open.clear()
