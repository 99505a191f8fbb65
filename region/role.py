"""One role of the product as a process of its own, as a container would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from runtime.health import is_ready
from runtime.lifecycle import die_with_parent

READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 40.0
_POLL_S: Final = 0.05
_START: Final = "from cli.main import main; main()"


class NotReady(Exception):
    """The role ended or was not ready in time; its last words are in the message."""


class Role:
    """``sansfilm <words>`` with settings of its own; a context manager. Its children die with it."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        settings: Mapping[str, str],
        *,
        awaits: Sequence[str],
        niceness: int = 0,
    ) -> None:
        """`awaits` are the processes, such as ``edge`` and ``forwarder``, that must be ready."""
        self.folder = folder
        self.settings = {"SANSFILM_DATA_DIR": str(folder), **settings}
        #: What of it serves health and metrics, in the run folder.
        self.awaits = tuple(awaits)
        self._words = list(words)
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What it was started as."""
        return " ".join(self._words)

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to ask about this role."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANSFILM_")}
        return {**kept, "OPENBLAS_NUM_THREADS": "1", **self.settings}

    def launch(self, **extra: str) -> None:
        """Start without waiting; `extra` goes into the environment of this start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()

        def prepare() -> None:
            die_with_parent(parent)
            os.nice(self._niceness)

        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *self._words],
                cwd=Path(__file__).parents[1],
                env={**self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,
            )

    def await_ready(self) -> None:
        """Wait until all its processes are ready.

        Raises:
            NotReady: not within a minute, or it ended.
        """
        ends_s = time.monotonic() + READY_TIMEOUT_S
        while not all(is_ready(self.folder / "run", process) for process in self.awaits):
            if not self.is_running or time.monotonic() > ends_s:
                raise NotReady(f"sansfilm {self.name} is not ready: {self.last_words()}")
            time.sleep(_POLL_S)

    def start(self, **extra: str) -> None:
        """Start and wait until it is ready. Raises NotReady."""
        self.launch(**extra)
        self.await_ready()

    def kill(self) -> None:
        """SIGKILL; the kernel kills its children with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: its connections stay, and it does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM, and the exit code; kill what has not ended in time. 0 if it did not run."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGCONT)  # unlike `thaw`, nothing to a process that has ended
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process = None

    def last_words(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "it said nothing"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.folder / "output.log"
