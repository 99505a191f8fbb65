"""`sansfilm doctor`: what it finds good, lacking and bad."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [one.getsockname()[1], other.getsockname()[1]]
    monkeypatch.setenv("SANSFILM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SANSFILM_VIEWER_DIR", str(tmp_path / "viewer"))
    monkeypatch.setenv("SANSFILM_DICOM_PORT", str(ports[0]))
    monkeypatch.setenv("SANSFILM_HTTP_PORT", str(ports[1]))


def examine(code: int) -> dict[str, Any]:
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == code, result.output
    return {finding["what"]: finding for finding in json.loads(result.stdout)["findings"]}


def test_a_machine_that_is_ready(tmp_path: Path) -> None:
    findings = examine(0)
    assert {"python", "sqlite", "packages", "DICOM port", "HTTP port", "data folder", "disk", "fsync"} <= set(findings)
    assert findings["viewer"]["level"] == "note"
    assert " ms for " in findings["fsync"]["text"]
    assert list(tmp_path.iterdir()) == []
    assert "✓ python" in runner.invoke(app, ["doctor"]).stdout


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("SANSFILM_DICOM_PORT", str(listener.getsockname()[1]))
        finding = examine(1)["DICOM port"]
    assert finding["level"] == "bad"
    assert "set SANSFILM_DICOM_PORT" in finding["text"]


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert examine(1)["data folder"]["level"] == "bad"


def test_a_disk_below_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANSFILM_DISK_RESERVE_BYTES", str(2**60))
    finding = examine(0)["disk"]
    assert finding["level"] == "note"
    assert "SANSFILM_DISK_RESERVE_BYTES" in finding["text"]


def test_the_viewers_version(tmp_path: Path) -> None:
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "index.html").touch()
    (tmp_path / "viewer" / "VERSION").write_text("3.12.10\n")
    assert examine(0)["viewer"]["text"] == "OHIF 3.12.10"


def test_a_folder_that_everybody_can_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    assert examine(0)["data folder"]["level"] == "note"
    (tmp_path / "data").chmod(0o750)
    assert examine(0)["data folder"]["level"] == "ok"
