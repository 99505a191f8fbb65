"""Signals, deadlines, and dying with one's parent; on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from runtime.lifecycle import FORCED_EXIT_CODE, Deadline
from tests.waiting import until

_WAITS = """
import sys
from runtime.lifecycle import stop_on_signals
stop = stop_on_signals(ignore_interrupt="ignore" in sys.argv)
print("waiting", flush=True)
stop.wait(60)
print("stopping", flush=True)
sys.stdin.readline()
print("stopped", flush=True)
"""


def _start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_first_signal_asks_and_the_second_ends() -> None:
    with _start(_WAITS) as process:
        assert _line(process) == "waiting"
        process.send_signal(signal.SIGTERM)
        assert _line(process) == "stopping"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == FORCED_EXIT_CODE


def test_interrupt_stops_a_role_that_runs_alone() -> None:
    with _start(_WAITS) as process:
        assert _line(process) == "waiting"
        process.send_signal(signal.SIGINT)
        assert _line(process) == "stopping"
        out, _ = process.communicate("\n", 10)
        assert (out.strip(), process.returncode) == ("stopped", 0)


def test_a_supervised_role_ignores_the_terminals_interrupt() -> None:
    with _start(_WAITS, "ignore") as process:
        assert _line(process) == "waiting"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert _line(process) == "stopping"
        assert process.poll() is None
        process.communicate("\n", 10)
        assert process.returncode == 0


_FAMILY = """
import os, sys, threading
from runtime.lifecycle import die_with_parent
me = os.getpid()
if os.fork() == 0:
    die_with_parent(me)
    print(os.getpid(), flush=True)
    threading.Event().wait(60)
threading.Event().wait(60)
"""


def test_a_child_dies_with_its_parent() -> None:
    with _start(_FAMILY) as parent:
        child = int(_line(parent))
        assert _lives(child)
        parent.kill()
        parent.wait()
        until(lambda: not _lives(child), what="the child's end")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_deadline_is_shared_and_never_negative() -> None:
    now_s = [100.0]
    deadline = Deadline(10.0, monotonic_s=lambda: now_s[0])
    assert deadline.remaining_s() == 10.0
    now_s[0] = 104.0
    assert deadline.remaining_s() == 6.0
    assert not deadline.passed
    now_s[0] = 111.0
    assert deadline.remaining_s() == 0.0
    assert deadline.passed


def test_own_pid_is_alive() -> None:
    assert _lives(os.getpid())
