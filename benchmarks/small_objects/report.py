"""The figures: as JSON, and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.table import Table

from benchmarks.small_objects.runs import Run
from cli.output import table

MIB: Final = 1024 * 1024
S3, FOLDER = "region, S3", "region, folder"
#: What the object store may cost over the folder, and in requests.
RATIO_MAX: Final = 1.5
PUTS_MAX: Final = 30
#: Published for Orthanc with its AWS S3 plug-in, one PUT a file: seconds for 1,635 files of 356 MB. Not measured here.
PEER_S: Final = {"S3": 184.6, "SSD": 8.6}


def ratio(runs: Sequence[Run], lane: str) -> float | None:
    """Median time until all is found: object store over folder."""
    medians = [_median_s(runs, system, lane) for system in (S3, FOLDER)]
    return round(medians[0] / medians[1], 3) if medians[0] and medians[1] else None


def puts_least(run: Run, *, batch_messages: int, batch_bytes: int) -> int:
    """Batches there would be if every one were full."""
    return max(-(-run.instances // batch_messages), -(-run.size_bytes // batch_bytes))


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """The verdict, by lane."""
    return {
        lane: {
            "ratio_s3_over_folder": ratio(runs, lane),
            "ratio_max": RATIO_MAX,
            "puts": sorted(run.puts for run in runs if run.lane == lane and run.puts is not None),
            "puts_max": PUTS_MAX,
        }
        for lane in dict.fromkeys(run.lane for run in runs)
    }


def side_by_side(runs: Sequence[Run]) -> Table:
    """A row for each system and lane: medians, with the least and the most."""
    columns = (
        "", "lane", "acknowledged s", "found s, median", "(min - max)", "over the folder", "PUTs", "segments",
        "journal", "instances of one", "MiB of one",
    )  # fmt: skip
    return table("from the first byte until QIDO-RS finds all", columns, _rows(runs))


def peer_line() -> str:
    """What is published of a peer."""
    times = PEER_S["S3"] / PEER_S["SSD"]
    return f"published, not measured here: Orthanc {PEER_S['S3']} s to S3, {PEER_S['SSD']} s to SSD ({times:.0f}x)"


def _rows(runs: Sequence[Run]) -> Iterator[Sequence[object]]:
    for lane, system in dict.fromkeys((run.lane, run.system) for run in runs):
        mine = [run for run in runs if (run.lane, run.system) == (lane, system)]
        found_s = [run.found_s for run in mine]
        each = [count for run in mine for count in run.segment_instances]
        each_mib = [size_bytes / MIB for run in mine for size_bytes in run.segment_bytes]
        over = ratio(runs, lane) if system == S3 else None
        yield (
            system,
            lane,
            f"{statistics.median(run.acknowledged_s for run in mine):.2f}",
            f"{statistics.median(found_s):.2f}",
            f"({min(found_s):.2f} - {max(found_s):.2f})",
            f"{over:.2f}x" if over else "",
            _span([run.puts for run in mine if run.puts is not None]),
            _span([len(run.segment_instances) for run in mine]),
            _span([run.journal_entries for run in mine]),
            f"{statistics.median(each):.0f} ({min(each)} - {max(each)})",
            f"{statistics.median(each_mib):.1f} ({min(each_mib):.1f} - {max(each_mib):.1f})",
        )


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} - {max(counts)}"


def _median_s(runs: Sequence[Run], system: str, lane: str) -> float:
    found_s = [run.found_s for run in runs if (run.system, run.lane) == (system, lane)]
    return statistics.median(found_s) if found_s else 0.0
