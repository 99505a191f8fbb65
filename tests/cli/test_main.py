"""The command itself: help that teaches, errors in one sentence, pages that are not stale, quick to start."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import reference
from cli.main import app
from cli.output import size_text
from cli.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
runner = CliRunner()


def test_version_is_that_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert runner.invoke(app, ["--version"]).stdout == f"sansfilm {VERSION}\n"


def test_help_names_every_command_and_how_to_begin() -> None:
    shown = runner.invoke(app, ["--help"]).stdout
    commands = (
        "up",
        "edge",
        "worker",
        "web",
        "keeper",
        "send",
        "demo",
        "status",
        "trace",
        "quarantine",
        "conflict",
        "archive",
    )
    assert all(f" {command} " in shown for command in (*commands, "doctor"))
    assert "Begin with sansfilm up" in shown


@pytest.mark.parametrize("command", ["up", "send", "demo", "status", "trace"])
def test_help_has_examples(command: str) -> None:
    assert "Example" in runner.invoke(app, [command, "--help"]).stdout


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, cli.main; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "pydantic", "pydicom", "pynetdicom", "sqlalchemy", "granian", "starlette", "imagecodecs"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_generated_pages_are_fresh(name: str) -> None:
    assert (ROOT / name).read_text() == reference.pages()[name], "run: make docs"


def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANSFILM_DICOM_PORT", "none")
    result = runner.invoke(app, ["up"])
    assert result.exit_code == 2
    assert result.stderr.startswith("sansfilm: settings are wrong: SANSFILM_DICOM_PORT: ")
    assert result.stderr.count("\n") == 1


def test_a_wrong_peer_is_one_sentence(tmp_path: Path) -> None:
    result = runner.invoke(app, ["send", str(tmp_path), "--to", "nonsense"])
    assert (result.exit_code, result.stderr) == (2, "sansfilm: 'nonsense' is not of the form AE@host:port\n")


def test_a_bug_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("cli.doctor.run_doctor", broken)
    assert isinstance(runner.invoke(app, ["doctor"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_210_000_000, "3.2 GB")])
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text
