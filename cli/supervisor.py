"""Starts, watches, restarts and stops child processes.

Single-threaded on purpose: children are forked from this very process, which has imported what they need, so a restart
costs milliseconds. One selector waits for signals (through a wake-up descriptor), for children's output, and for the
next thing that is due. The kernel kills the children should this process die.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cli.role_log import RoleLog
from runtime.health import is_ready
from runtime.lifecycle import FORCED_EXIT_CODE, STOP_SIGNALS, Deadline, die_with_parent
from runtime.roll import Roll

_READY_POLL_S = 0.02
_FIRST_PAUSE_S = 0.25
_STABLE_AFTER_S = 10.0
_MISCONFIGURED_EXIT_CODE = 2
_PIECES_PER_TURN = 16
_CHILD_SIGNALS = (*STOP_SIGNALS, signal.SIGCHLD)
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A process to keep running."""

    role: str
    index: int
    #: Runs in the forked child; gives its exit code. Must end soon after SIGTERM.
    run: Callable[[], int]
    #: Children of a lower stage are stopped, and have ended, before those of a higher one are told.
    stop_stage: int

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Every wait of the supervisor, in seconds, and the size of a child's log file."""

    ready_timeout_s: float
    shutdown_timeout_s: float
    restart_wait_max_s: float
    log_file_max_bytes: int


class Supervisor:
    """Keeps `specs` running until a signal; `run` blocks and gives the exit code.

    `on_ready` is called once, when every child is ready for the first time; `on_notice` gets a child's name and a
    sentence for the terminal.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        run_dir: Path,
        logs_dir: Path,
        bounds: Bounds,
        on_ready: Callable[[], None],
        on_notice: Callable[[str, str], None],
    ) -> None:
        self._bounds = bounds
        self._on_ready = on_ready
        self._on_notice = on_notice
        self._selector = selectors.DefaultSelector()
        self._run_dir = run_dir
        self._children = [_Child(spec, run_dir, self._log_of(spec, logs_dir), self._selector) for spec in specs]
        self._signals = 0
        self._announced = False
        self._stopping = False
        self._failure: int | None = None

    def run(self) -> int:
        """Start everything, watch until a signal or a failed start, stop everything."""
        wake, old = self._catch_signals()
        self._roll = Roll(self._run_dir, [child.spec.name for child in self._children])
        try:
            startup = Deadline(self._bounds.ready_timeout_s)
            for child in self._children:
                child.start()
            while self._signals == 0 and self._failure is None:
                self._turn(self._wait_s())
                self._check_start(startup)
            return self._stop()
        finally:
            self._kill_all()
            self._roll.close()
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            for end in wake:
                end.close()
            self._selector.close()

    def _log_of(self, spec: ChildSpec, logs_dir: Path) -> RoleLog:
        return RoleLog(
            logs_dir,
            spec.name,
            max_bytes=self._bounds.log_file_max_bytes,
            on_warning=lambda text: self._on_notice(spec.name, text),
        )

    def _catch_signals(self) -> tuple[tuple[socket.socket, socket.socket], dict[int, _Handler]]:
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._selector.register(reading, selectors.EVENT_READ, None)

        def count(_number: int, _frame: object) -> None:
            self._signals += 1

        old: dict[int, _Handler] = {}
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                old[number] = signal.signal(number, count)
        old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        return (reading, writing), old

    def _turn(self, wait_s: float | None) -> None:
        """Wait for something, then take output, notice ends, restart what is due."""
        for key, _ in self._selector.select(wait_s):
            if isinstance(key.data, _Child):
                key.data.take_output()
            else:
                with suppress(BlockingIOError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
        for child in self._children:
            ended = child.reap()
            if ended is not None:
                self._on_end(child, ended)
            if not self._stopping and child.is_due():
                child.start()
                self._roll.restarted(child.spec.name)
                self._on_notice(child.spec.name, "restarted")
            child.ask_ready()

    def _on_end(self, child: _Child, exit_code: int) -> None:
        if self._stopping or self._signals:
            return
        if exit_code == _MISCONFIGURED_EXIT_CODE and not child.was_ready:
            self._failure = _MISCONFIGURED_EXIT_CODE
            return
        pause_s = child.plan_restart(self._bounds.restart_wait_max_s)
        after = f"restarting in {pause_s:g} s" if pause_s else "restarting"
        self._on_notice(child.spec.name, f"ended unexpectedly ({_cause(exit_code)}); {after}")

    def _check_start(self, startup: Deadline) -> None:
        if self._announced or self._failure is not None:
            return
        late = [child.spec.name for child in self._children if not child.was_ready]
        if not late:
            self._announced = True
            self._on_ready()
        elif startup.passed:
            self._on_notice("supervisor", f"not ready after {self._bounds.ready_timeout_s:g} s: {', '.join(late)}")
            self._failure = 1

    def _wait_s(self) -> float | None:
        """Until something is due: a readiness question soon, a restart at its time, otherwise for ever."""
        waits = [child.wait_s() for child in self._children]
        return min((wait for wait in waits if wait is not None), default=None)

    def _stop(self) -> int:
        self._stopping = True
        deadline = Deadline(self._bounds.shutdown_timeout_s)
        signals = self._signals
        for stage in sorted({child.spec.stop_stage for child in self._children}):
            members = [child for child in self._children if child.spec.stop_stage == stage]
            for child in members:
                child.signal(signal.SIGTERM)
            while any(child.alive for child in members):
                if deadline.passed or self._signals > signals:
                    return self._give_up(forced=self._signals > signals)
                self._turn(deadline.remaining_s())
        return self._failure or 0

    def _give_up(self, *, forced: bool) -> int:
        late = ", ".join(child.spec.name for child in self._children if child.alive)
        why = "second signal" if forced else f"not stopped after {self._bounds.shutdown_timeout_s:g} s"
        self._on_notice("supervisor", f"{why}: killing {late}; nothing acknowledged is lost, the next start goes on")
        return FORCED_EXIT_CODE if forced else 1

    def _kill_all(self) -> None:
        for child in self._children:
            child.kill()


class _Child:
    """One child: its process, its output, when it is due again."""

    def __init__(self, spec: ChildSpec, run_dir: Path, log: RoleLog, selector: selectors.BaseSelector) -> None:
        self.spec = spec
        self.was_ready = False
        self._run_dir = run_dir
        self._log = log
        self._selector = selector
        self._pid = 0
        self._output = -1
        self._ready = False
        self._started_s = 0.0
        self._due_s: float | None = None
        self._failures = 0

    @property
    def alive(self) -> bool:
        return self._pid != 0

    def start(self) -> None:
        parent = os.getpid()
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back over the fork: a signal to the child must not be spent on the handler it inherits.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _CHILD_SIGNALS)
        pid = os.fork()
        if pid == 0:
            os._exit(self._be_child(parent, reading, writing, blocked))
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(writing)
        os.set_blocking(reading, False)
        self._pid, self._output, self._ready, self._due_s = pid, reading, False, None
        self._started_s = time.monotonic()
        self._selector.register(reading, selectors.EVENT_READ, self)

    def _be_child(self, parent: int, reading: int, writing: int, mask: set[int | signal.Signals]) -> int:
        """The child's whole life; never returns into the supervisor's code."""
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in _CHILD_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._selector.close()
            os.close(reading)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (writing, 1), (writing, 2)):
                os.dup2(source, target)
            return self.spec.run()
        except BaseException as error:  # noqa: BLE001 - a fork must not unwind into its parent's frames
            os.write(2, f"{self.spec.name}: {type(error).__name__} reached the top of the process\n".encode())
            return 1
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()

    def take_output(self) -> None:
        """Read what is there, a megabyte at most; at the end of the output, stop listening."""
        with suppress(BlockingIOError):
            for _ in range(_PIECES_PER_TURN):
                output = os.read(self._output, 65536)
                if not output:
                    self._close_output()
                    return
                self._log.feed(output)

    def reap(self) -> int | None:
        """The exit code (negative: the signal) if the process has just ended."""
        if not self._pid:
            return None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid == 0:
            return None
        self._pid, self._ready = 0, False
        if self._output >= 0:
            self.take_output()
            self._close_output()
        return os.waitstatus_to_exitcode(status)

    def ask_ready(self) -> None:
        if self.alive and not self._ready and is_ready(self._run_dir, self.spec.role, self.spec.index):
            self._ready = self.was_ready = True

    def plan_restart(self, wait_max_s: float) -> float:
        """Decide when to start again: at once after a stable run, then after doubling pauses. Gives the pause."""
        now_s = time.monotonic()
        if now_s - self._started_s >= _STABLE_AFTER_S:
            self._failures = 0
        pause_s = min(_FIRST_PAUSE_S * 2 ** (self._failures - 1), wait_max_s) if self._failures else 0.0
        self._failures += 1
        self._due_s = now_s + pause_s
        return pause_s

    def is_due(self) -> bool:
        return self._due_s is not None and time.monotonic() >= self._due_s

    def wait_s(self) -> float | None:
        if self._due_s is not None:
            return max(0.0, self._due_s - time.monotonic())
        return _READY_POLL_S if self.alive and not self._ready else None

    def signal(self, number: int) -> None:
        self._due_s = None
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill(self) -> None:
        """End it now and wait for its end."""
        self.signal(signal.SIGKILL)
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0
        self._close_output()
        self._log.close()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._selector.unregister(self._output)
            os.close(self._output)
            self._output = -1


def _cause(exit_code: int) -> str:
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
