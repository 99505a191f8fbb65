"""The supervisor over real child processes: restart, order of stopping, deadlines, orphans, output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.health import is_ready
from runtime.roll import read_roll
from tests.waiting import until

ALL = ("edge:plain", "worker:plain", "web:plain")


class Supervised:
    """A running supervisor and what it said."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._heard: list[dict[str, str]] = []

    def hear(self, what: str) -> dict[str, str]:
        """The next line of that kind; others are kept: their order depends on what the supervisor sees first."""
        assert self.process.stdout is not None
        for earlier in self._heard:
            if earlier["what"] == what:
                self._heard.remove(earlier)
                return earlier
        for line in self.process.stdout:
            said: dict[str, str] = json.loads(line)
            if said["what"] == what:
                return said
            self._heard.append(said)
        raise AssertionError(f"the supervisor ended without a word of {what!r}")

    def children(self) -> list[int]:
        """Process ids of its children."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def child(self, role: str) -> int:
        """The child of that role, of those that were forked at the start: edge, worker, web."""
        return sorted(self.children())[("edge", "worker", "web").index(role)]

    def ended(self) -> list[str]:
        return (self.folder / "ended").read_text().split()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def supervised(folder: Path, *kinds: str, ready_s: float = 20, stop_s: float = 20) -> Iterator[Supervised]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.toy", str(folder), *kinds],
        env={**os.environ, "TOY_READY_S": str(ready_s), "TOY_STOP_S": str(stop_s)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Supervised(process, folder)
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_it_says_ready_and_stops_in_order(folder: Path) -> None:
    with supervised(folder, *ALL) as running:
        running.hear("ready")
        assert running.stop() == 0
    assert running.ended() == ["edge", "worker", "web"]


def test_a_role_logs_its_settings_when_it_starts(folder: Path) -> None:
    with supervised(folder, *ALL) as running:
        running.hear("ready")
        running.stop()
    first = json.loads((folder / "logs" / "worker-0.log").read_text().splitlines()[0])
    assert (first["event"], first["tenant"], first["inline_max_bytes"]) == ("settings_read", "default", 2**20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_still_stops_in_order(folder: Path, number: signal.Signals) -> None:
    """As a terminal sends it for Ctrl-C, or when it is closed."""
    with supervised(folder, *ALL) as running:
        running.hear("ready")
        for pid in (*running.children(), running.process.pid):
            os.kill(pid, number)
        assert running.process.wait(20) == 0
    assert running.ended() == ["edge", "worker", "web"]


@pytest.mark.parametrize("role", ["edge", "worker", "web"])
def test_a_killed_role_is_restarted_and_ready_again(folder: Path, role: str) -> None:
    with supervised(folder, *ALL) as running:
        running.hear("ready")
        victim = running.child(role)
        os.kill(victim, signal.SIGKILL)
        said = running.hear("notice")
        assert said["name"] == f"{role}-0"
        assert "SIGKILL" in said["text"]
        until(lambda: len(running.children()) == 3 and is_ready(folder / "run", role), what="readiness")
        assert victim not in running.children()
        assert read_roll(folder / "run") == {"edge-0": 0, "worker-0": 0, "web-0": 0, f"{role}-0": 1}
        assert running.stop() == 0
    assert read_roll(folder / "run") == {}


def test_failures_are_retried_with_pauses_and_quote_no_value(folder: Path) -> None:
    with supervised(folder, "edge:plain", "worker:failing_twice") as running:
        notices = [running.hear("notice")["text"] for _ in range(5)]
        running.hear("ready")
        assert running.stop() == 0
    assert [text for text in notices if "ended" in text] == [
        "ended unexpectedly (exit code 1); restarting",
        "ended unexpectedly (exit code 1); restarting in 0.2 s",
    ]
    assert "ValueError" in notices[0]
    assert "PLANTED" not in "".join(notices) + (folder / "logs" / "worker-0.log").read_text()


def test_a_crash_in_native_code_is_named(folder: Path) -> None:
    with supervised(folder, "worker:segfaulting_once") as running:
        texts: list[str] = []
        while not texts or "ended" not in texts[-1]:
            texts.append(running.hear("notice")["text"])
        assert "SIGSEGV" in texts[-1]
        running.hear("ready")
        assert running.stop() == 0


def test_a_misconfigured_role_ends_the_start(folder: Path) -> None:
    with supervised(folder, "edge:plain", "worker:misconfigured") as running:
        assert "the thing is not plugged in" in running.hear("notice")["text"]
        assert running.process.wait(20) == 2


def test_a_role_that_never_gets_ready_ends_the_start(folder: Path) -> None:
    with supervised(folder, "edge:plain", "web:never_ready", ready_s=0.5) as running:
        text = running.hear("notice")["text"]
        assert text.startswith("not ready after 0.5 s: ")
        assert "web-0" in text
        assert running.process.wait(20) == 1
        assert running.process.stdout is not None
        assert "restart" not in running.process.stdout.read()


def test_the_deadline_kills_who_does_not_stop(folder: Path) -> None:
    with supervised(folder, "edge:plain", "worker:deaf", "web:plain", stop_s=0.5) as running:
        running.hear("ready")
        assert running.stop() == 1
        assert running.hear("notice")["text"].startswith("not stopped after 0.5 s: killing worker-0, web-0")


def test_a_second_signal_kills_at_once(folder: Path) -> None:
    with supervised(folder, "edge:plain", "worker:deaf") as running:
        running.hear("ready")
        running.process.send_signal(signal.SIGTERM)
        until(lambda: (folder / "ended").exists(), what="the edge's end")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 130


def test_children_die_with_a_killed_supervisor(folder: Path) -> None:
    with supervised(folder, *ALL) as running:
        running.hear("ready")
        children = running.children()
        assert len(children) == 3
        running.process.kill()
        running.process.wait()
        until(lambda: not any(_lives(child) for child in children), what="the children's end")


def test_output_goes_to_bounded_files_and_warnings_to_the_terminal(folder: Path) -> None:
    with supervised(folder, "worker:chatty") as running:
        assert running.hear("notice")["text"] == "warning: chatted_enough number=400"
        running.hear("ready")
        assert running.stop() == 0
    newest, older = folder / "logs" / "worker-0.log", folder / "logs" / "worker-0.log.1"
    assert newest.stat().st_size <= 8192
    assert older.stat().st_size <= 8192
    assert json.loads(newest.read_text().splitlines()[-1])["event"] == "role_stopped"


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
