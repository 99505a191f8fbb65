"""The roll of a machine: which processes a supervisor means to run, and how often it had to start them again.

Kept by the supervisor in ``supervised.json`` of the run folder and locked while it lives, so that whoever reads it can
tell a process that is missing from one that nobody wants. Nothing here is durable: it says what is, not what was.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_NAME: Final = "supervised.json"


class Roll:
    """Written by the one supervisor of a run folder; `close` it at the end.

    Children that it forks hold the lock too: the kernel ends them with it.
    """

    def __init__(self, run_dir: Path, names: Sequence[str]) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / _NAME
        self._restarts = dict.fromkeys(names, 0)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        self._write()

    def restarted(self, name: str) -> None:
        """Count a restart of `name`."""
        self._restarts[name] += 1
        self._write()

    def close(self) -> None:
        """Nothing is meant to run any more."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self) -> None:
        content = json.dumps(self._restarts).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))


def read_roll(run_dir: Path) -> Mapping[str, int]:
    """Restarts by name (``edge-0``) of every process that is meant to run now; empty where nobody supervises."""
    try:
        file = os.open(run_dir / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # taken only if its supervisor is gone
    except BlockingIOError:
        return _decoded(os.pread(file, 1 << 16, 0))
    finally:
        os.close(file)
    return {}


def _decoded(content: bytes) -> Mapping[str, int]:
    try:
        return {str(name): int(count) for name, count in json.loads(content).items()}
    except ValueError:  # just being written
        return {}
