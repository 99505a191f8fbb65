"""A child's output: bounded files, and what of it reaches the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.role_log import RoleLog, summarize


def line(**event: object) -> bytes:
    return json.dumps(event).encode() + b"\n"


def log_of(folder: Path, max_bytes: int = 1000) -> tuple[RoleLog, list[str]]:
    said: list[str] = []
    return RoleLog(folder, "edge-0", max_bytes=max_bytes, on_warning=said.append), said


def test_lines_in_pieces_are_whole_in_the_file(tmp_path: Path) -> None:
    log, _ = log_of(tmp_path)
    for piece in (b"one\ntw", b"o\nthr", b"ee"):
        log.feed(piece)
    log.close()
    assert log.path.read_bytes() == b"one\ntwo\nthree\n"


def test_two_files_of_bounded_size_hold_the_newest_lines(tmp_path: Path) -> None:
    log, _ = log_of(tmp_path, max_bytes=1000)
    for number in range(500):
        log.feed(b"%06d\n" % number)
    log.close()
    older = log.path.with_suffix(".log.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edge-0.log", "edge-0.log.1"]
    assert log.path.stat().st_size <= 1000
    assert older.stat().st_size <= 1000
    kept = (older.read_text() + log.path.read_text()).split()
    assert kept == [f"{number:06d}" for number in range(500 - len(kept), 500)]


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    log, _ = log_of(tmp_path, max_bytes=10**6)
    for _ in range(40):
        log.feed(b"x" * 4096)
    log.close()
    assert log.path.stat().st_size > 64 * 1024


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    """/dev/full answers every write with ENOSPC."""
    log, said = log_of(Path("/dev"), max_bytes=1000)
    log.path = Path("/dev/full")
    log.feed(line(level="error", event="disk_full"))
    log.feed(b"second\n")
    assert log.lost_lines == 2
    assert said[0] == "error: disk_full"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (line(level="info", event="instance_committed"), ""),
        (line(level="warning", event="log_torn", kind="tail", role="worker-0"), "warning: log_torn kind=tail"),
        (line(level="error", event="role_failed", message="Do this."), "error: role_failed message=Do this."),
        (b"Fatal Python error: Segmentation fault\n", "Fatal Python error: Segmentation fault"),
        (b"2026-03-01 [info     ] instance_committed\n", ""),
        (b"2026-03-01 [warning  ] log_torn\n", "2026-03-01 [warning  ] log_torn"),
        (b"\n", ""),
        (b"[1, 2]\n", ""),
    ],
)
def test_only_warnings_reach_the_terminal(written: bytes, shown: str) -> None:
    assert summarize(written) == shown
