"""The roll: who is meant to run, for as long as a supervisor lives."""

from __future__ import annotations

from pathlib import Path

from runtime.roll import Roll, read_roll


def test_the_roll_says_who_is_meant_to_run_and_how_often_it_was_restarted(tmp_path: Path) -> None:
    assert read_roll(tmp_path) == {}
    roll = Roll(tmp_path / "run", ["edge-0", "worker-0"])
    roll.restarted("worker-0")
    assert read_roll(tmp_path / "run") == {"edge-0": 0, "worker-0": 1}
    roll.close()
    assert read_roll(tmp_path / "run") == {}


def test_what_a_killed_supervisor_left_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "supervised.json").write_text('{"edge-0": 3}')
    assert read_roll(tmp_path) == {}
    roll = Roll(tmp_path, ["web-0"])
    assert read_roll(tmp_path) == {"web-0": 0}
    roll.close()
