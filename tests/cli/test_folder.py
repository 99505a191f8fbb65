"""The data folder: who may look into it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cli.folder import DataFolder
from cli.roles import run_role
from runtime.errors import Misconfigured
from runtime.settings import CommonSettings


@pytest.fixture(autouse=True)
def usual_umask() -> None:
    os.umask(0o022)


def test_a_new_data_folder_is_for_us_alone(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "srv" / "data"):
        assert (tmp_path / "srv" / "data").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_was_there_stays_as_its_owner_wants_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o750)
    with DataFolder(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o750


def test_a_role_alone_makes_it_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.roles.stop_on_signals", lambda **_: threading.Event())
    monkeypatch.setattr("cli.roles.configure_logs", lambda **_: None)
    settings = CommonSettings(data_dir=tmp_path / "data")  # type: ignore[call-arg]

    def body(stop: threading.Event, ready: object) -> None:
        raise Misconfigured("nothing to do")

    assert run_role("worker", 0, settings, body, supervised=False) == 2
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
