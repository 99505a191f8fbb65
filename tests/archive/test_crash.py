"""A real process is killed at each of the archive's fault points; the batch comes again and is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archive.sql_reader import open_reader
from archive.verify import verify
from runtime.faults import POINTS, VARIABLE
from schemas.decisions import UseVersion
from tests.archive.house import House, snapshot
from tests.archive.samples import SCOPE, TENANT, member, unfileable
from tests.datasets import mr_dataset

MINE = [point for point in POINTS if point.partition(".")[0] in ("store", "journal", "catalog")]
FIRST, OTHER = member(mr_dataset(1)), member(mr_dataset(1, seed=9))
MEMBERS = [FIRST, member(mr_dataset(2)), OTHER, unfileable("q1")]
UID = str(mr_dataset(1).SOPInstanceUID)


def story(house: House) -> None:
    """A batch with a conflict and a quarantine entry, then a decision; all of it may be repeated."""
    house.take(*MEMBERS)
    house.decide(UseVersion(tenant=TENANT, sop_instance_uid=UID, wire_sha256=OTHER.record.wire_sha256), "d1")


def run_and_die(folder: Path, fault: str) -> int:
    """The story in a process of its own, armed to die."""
    program = (
        "import sys; from pathlib import Path; from tests.archive import house, test_crash\n"
        "test_crash.story(house.House(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**os.environ, VARIABLE: fault, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize(
    ("point", "time"), [*((point, 1) for point in MINE), ("store.renamed", 2), ("catalog.committed", 2)]
)
def test_killed_at_a_fault_point(tmp_path: Path, point: str, time: int) -> None:
    assert run_and_die(tmp_path, f"{point}:{time}") == -signal.SIGKILL
    house = House(tmp_path)
    story(house)
    live = snapshot(house.reader)
    assert live["counters"] | {"bytes": 0} == {
        "studies": 1, "series": 1, "instances": 2, "versions": 3, "conflicts": 1, "quarantined": 1,
        "decisions": 1, "mixed": 0, "bytes": 0,
    }  # fmt: skip
    current = {known.wire_sha256: known.current for known, _ in house.reader.versions(SCOPE, UID)}
    assert current == {FIRST.record.wire_sha256: False, OTHER.record.wire_sha256: True}
    assert verify(house.reader, house.store).is_clean
    house.rebuild()
    assert snapshot(house.reader) == live
    assert list((tmp_path / "archive").rglob("*.part")) == []
    house.close()


def test_all_fault_points_of_the_archive_are_visited() -> None:
    assert sorted(MINE) == [
        "catalog.committed", "catalog.inserted", "journal.written", "store.renamed", "store.synced", "store.written",
    ]  # fmt: skip


def test_a_reader_alone_sees_what_a_killed_writer_committed(tmp_path: Path) -> None:
    """The commit is in the write-ahead log only, and nobody has opened it for writing since."""
    assert run_and_die(tmp_path, "catalog.committed:1") == -signal.SIGKILL
    reader = open_reader(tmp_path / "catalog" / "catalog.sqlite")
    assert reader.counters(TENANT)["instances"] == 2
    reader.close()
