"""The benchmarks run at their smallest size, so that they cannot rot; their figures are not looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ingest, insert_cost, kafka, stages, store


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


def test_every_store_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--rounds", "1", "--segments", "1", "--segment-mib", "1", "--reads", "4", "--claim-mib", "17"]
    store.main(sizes)
    measured = json.loads(capsys.readouterr().out)
    assert set(measured["folder"]) == set(measured["s3"]) > {"put_mib_per_s", "reads_per_s_8", "claim_mib_per_s"}
    assert measured["spooled, then s3"]["claim_ms_after_last_byte"] > 0
    assert measured["ceilings"]["disk_mib_per_s"] > 0


def test_both_logs_are_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    kafka.main(["--instances", "12", "--rounds", "1", "--senders", "4", "--json", str(report)])
    measured = json.loads(report.read_text())
    assert measured["kafka"]["publish_broker_cpu_ms"]["median"] > 0
    assert measured["local"]["take_per_s"]["median"] > 0


def test_a_small_catalog_is_filled_and_committed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plot.svg"
    sizes = ["--rows", "1000", "2000", "--batches", "2", "--uids", "device", "--committers", "2"]
    insert_cost.main([*sizes, "--folder", str(tmp_path), "--plot", str(picture)])
    report = json.loads(capsys.readouterr().out)
    assert [(one["catalog"], one["rows"]) for one in report["costs"]] == [
        ("sqlite", 1000), ("sqlite", 2000), ("postgres", 1000), ("postgres", 2000),
    ]  # fmt: skip
    assert all(one["batch_ms_median"] > 0 for one in report["costs"])
    assert [(one["processes"], one["tenants"]) for one in report["together"]] == [(1, 1), (2, 1), (2, 2)]
    assert picture.read_text().count("<polyline") == 2
