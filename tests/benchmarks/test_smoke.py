"""The benchmarks run at their smallest size, so that they cannot rot; their figures are not looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ingest, stages


def test_ten_slices_are_acknowledged_and_found(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    sizes = ["--instances", "10", "--rounds", "1", "--associations", "2", "--folder", str(tmp_path)]
    ingest.main([*sizes, "--only", "sansfilm edge", "floor", "DCMTK storescp", "sansfilm htj2k", "--json", str(report)])
    runs = json.loads(report.read_text())["runs"]
    assert [run["receiver"] for run in runs] == ["sansfilm edge", "floor", "DCMTK storescp", "sansfilm htj2k"]
    assert runs[0]["found_s"] is None
    assert runs[3]["found_s"] >= runs[3]["acknowledged_s"] > 0
    assert runs[3]["usage"]["written_bytes"] > 0
    assert {"sf-edge-0", "sf-worker-0", "sf-web-0"} <= set(runs[3]["usage"]["cpu_s_by_name"])


def test_every_stage_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    stages.main(["--instances", "3", "--rounds", "1"])
    costs = json.loads(capsys.readouterr().out)
    assert {"head", "htj2k + proof", "commit (keep)", "commit (htj2k)"} <= set(costs)
    assert costs["htj2k + proof"] > 0
