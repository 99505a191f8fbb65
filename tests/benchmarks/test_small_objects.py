"""What the benchmark of small objects sends, and how it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from benchmarks.small_objects.report import FOLDER, S3, puts_least, ratio, side_by_side, summary
from benchmarks.small_objects.runs import Run
from benchmarks.small_objects.study_set import INSTANCES, SIDES, mix, write_study_set


def test_the_set_is_that_of_the_published_figure() -> None:
    assert sum(SIDES.values()) == INSTANCES == 1_635
    assert sum(2 * side * side * count for side, count in SIDES.items()) == pytest.approx(356e6, rel=0.01)
    assert mix(INSTANCES) == dict(SIDES)


@pytest.mark.parametrize("instances", [1, 40, 300])
def test_smaller_sets_are_mixed_alike(instances: int) -> None:
    assert sum(mix(instances).values()) == instances


def test_files_are_instances_of_their_own_with_their_headers(tmp_path: Path) -> None:
    paths = write_study_set(tmp_path / "set", instances=30, run=123_456_789)
    datasets = [dcmread(path) for path in paths]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 30
    assert {dataset.Modality for dataset in datasets} == {"MR", "CT"}
    assert {dataset.Rows for dataset in datasets} == set(SIDES)
    for path, dataset in zip(paths, datasets, strict=True):
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert path.stat().st_size < len(dataset.PixelData) + 2_000


def _run(system: str, found_s: float, *, puts: int | None = None, lane: str = "routine") -> Run:
    return Run(
        system=system,
        lane=lane,
        instances=1_635,
        size_bytes=356_000_000,
        acknowledged_s=2.0,
        found_s=found_s,
        segment_instances=[256, 8],
        segment_bytes=[40_000_000, 1_000_000],
        journal_entries=0,
        puts=puts,
    )


def test_the_store_is_held_against_the_folder_by_lane() -> None:
    runs = [_run(S3, 6.0, puts=9), _run(FOLDER, 5.0), _run(S3, 7.0, puts=11), _run(FOLDER, 5.0), _run(S3, 9.0, puts=10)]
    runs.append(_run(FOLDER, 8.0, lane="bulk"))
    assert ratio(runs, "routine") == 1.4
    assert ratio(runs, "bulk") is None
    assert summary(runs)["routine"]["puts"] == [9, 10, 11]
    assert side_by_side(runs).row_count == 3


def test_full_batches_are_the_least_there_can_be() -> None:
    assert puts_least(_run(S3, 1.0), batch_messages=256, batch_bytes=2**26) == 7
    assert puts_least(_run(S3, 1.0), batch_messages=1_000, batch_bytes=2**26) == 6
