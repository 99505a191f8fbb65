"""A role that ended by itself is stopped like any other."""

from __future__ import annotations

from pathlib import Path

from region.role import Role
from tests.waiting import until


def test_stopping_what_has_ended_gives_its_exit_code(tmp_path: Path) -> None:
    role = Role(["--version"], tmp_path, {}, awaits=[])
    role.launch()
    until(lambda: not role.is_running, what="the end")
    assert role.stop() == 0
    assert role.stop() == 0
