"""Lanes shared by the processes of a folder and kept over restarts; whatever becomes of the file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from structlog.testing import capture_logs

from broker.opening import waiting_here
from ingest.arrival import Sender
from ingest.lane_store import LaneStore
from ingest.lanes import Lanes, parse_rules
from runtime.clock import SystemClock
from schemas.message import Lane
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset
from tests.ingest.conftest import RunningEdge, StartEdge
from tests.ingest.peers import EXPLICIT_LE
from tests.ingest.test_lanes import sender

URGENT, BULK = parse_rules("*=urgent"), parse_rules("*=bulk")
TIMEOUT_S = 30.0


class HandClock(SystemClock):
    """A clock of seconds that goes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lanes" / "lanes.sqlite"


@contextmanager
def opened(path: Path, *, studies_max: int = 100, clock: HandClock | None = None) -> Iterator[LaneStore]:
    with closing(LaneStore(path, studies_max=studies_max, clock=clock)) as store:
        yield store


def lane_of(lanes: Lanes, study: str = "1.2", *, tenant: str = "default", who: Sender | None = None) -> Lane:
    return lanes.of(who or sender(), tenant, study)


def test_two_processes_of_a_folder_agree_although_their_rules_do_not(path: Path) -> None:
    with opened(path) as one, opened(path) as other:
        first, second = Lanes(URGENT, Lane.ROUTINE, store=one), Lanes(BULK, Lane.ROUTINE, store=other)
        assert lane_of(first, "1.2") == lane_of(second, "1.2") == Lane.URGENT
        assert lane_of(second, "1.3") == lane_of(first, "1.3") == Lane.BULK
        assert lane_of(second, "1.2", tenant="north") == Lane.BULK


def test_a_restart_keeps_the_lanes(path: Path) -> None:
    with opened(path) as store:
        assert lane_of(Lanes(URGENT, Lane.ROUTINE, store=store)) == Lane.URGENT
    with opened(path) as store:
        assert lane_of(Lanes(BULK, Lane.ROUTINE, store=store)) == Lane.URGENT


def test_a_study_that_this_process_forgot_keeps_its_lane(path: Path) -> None:
    with opened(path) as store:
        lanes = Lanes(parse_rules("ER=urgent"), Lane.ROUTINE, store=store, studies_max=1)
        assert lane_of(lanes, "1.2", who=sender("ER")) == Lane.URGENT
        assert lane_of(lanes, "1.3") == Lane.ROUTINE
        assert lane_of(lanes, "1.2") == Lane.URGENT


def test_without_rules_or_a_study_there_is_no_file(path: Path) -> None:
    with opened(path) as store:
        assert lane_of(Lanes((), Lane.BULK, store=store)) == Lane.BULK
        assert lane_of(Lanes(URGENT, Lane.BULK, store=store), "") == Lane.URGENT
    assert not path.parent.exists()


def test_a_study_is_asked_about_once(path: Path) -> None:
    with opened(path) as store:
        lanes = Lanes(URGENT, Lane.ROUTINE, store=store)
        lane_of(lanes)
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE decided SET lane = 'bulk'")
            other.commit()
        assert lane_of(lanes) == Lane.URGENT


def test_the_studies_kept_are_bounded_and_the_oldest_go(path: Path) -> None:
    with opened(path, studies_max=10) as store:
        for number in range(95):
            store.decide("default", f"1.{number}", Lane.URGENT)
            store.decide("default", "1.0", Lane.URGENT)  # asked about all the time
    with opened(path, studies_max=10) as store:
        assert store.decide("default", "1.0", Lane.BULK) == Lane.URGENT
        assert store.decide("default", "1.94", Lane.BULK) == Lane.URGENT
        assert store.decide("default", "1.1", Lane.BULK) == Lane.BULK
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT COUNT(*) FROM decided").fetchone()[0] <= 20


@pytest.mark.parametrize("content", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_none_is_replaced(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with capture_logs() as logs, opened(path) as one, opened(path) as other:
        assert one.decide("default", "1.2", Lane.URGENT) == other.decide("default", "1.2", Lane.BULK) == Lane.URGENT
    assert [line["event"] for line in logs] == ["lane_store_replaced"]


def test_a_file_damaged_under_a_process_refuses_nothing_and_is_replaced(path: Path) -> None:
    clock = HandClock()
    with capture_logs() as logs, opened(path, studies_max=5000, clock=clock) as store:
        for number in range(3000):
            store.decide("default", f"1.{number}", Lane.URGENT)
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
        assert [store.decide("default", f"2.{number}", Lane.BULK) for number in range(3)] == [Lane.BULK] * 3
        clock.seconds += 61
        assert store.decide("default", "2.0", Lane.URGENT) == Lane.URGENT
        assert store.decide("default", "2.0", Lane.BULK) == Lane.URGENT
    assert [line["event"] for line in logs] == ["lane_store_failed", "lane_store_replaced", "lane_store_works"]


def test_a_held_file_delays_one_study_and_refuses_none(path: Path) -> None:
    clock = HandClock()
    with opened(path, clock=clock) as store:
        store.decide("default", "1.0", Lane.URGENT)
        with closing(sqlite3.connect(path, isolation_level=None)) as other, capture_logs() as logs:
            other.execute("BEGIN EXCLUSIVE")
            assert [store.decide("default", f"1.{n}", Lane.BULK) for n in range(200)] == [Lane.BULK] * 200
            other.execute("ROLLBACK")
        assert logs == [
            {"event": "lane_store_failed", "path": str(path), "error": "SQLITE_BUSY", "log_level": "warning"}
        ]
        clock.seconds += 61
        assert store.decide("default", "1.0", Lane.BULK) == Lane.URGENT


def test_a_folder_that_cannot_be_written_refuses_nothing(path: Path) -> None:
    path.parent.write_bytes(b"a file where the folder should be")
    with capture_logs() as logs, opened(path) as store:
        assert store.decide("default", "1.2", Lane.URGENT) == Lane.URGENT
        assert store.decide("default", "1.2", Lane.BULK) == Lane.BULK
    assert [(line["event"], line["error"]) for line in logs] == [("lane_store_failed", "FileExistsError")]


def test_a_restarted_edge_puts_the_rest_of_a_study_into_its_lane(start_edge: StartEdge) -> None:
    rules = {"lane_rules": "CT_ER*=urgent,OLD_PACS=bulk"}
    first = start_edge(**rules)
    send(first, b"CT_ER1", mr_dataset(1))
    first.drain()
    again = start_edge(**rules)
    send(again, b"OLD_PACS", mr_dataset(2))
    send(again, b"OLD_PACS", mr_dataset(1, study=2))
    lanes = {one.sop_instance_uid: one.lane for one in waiting_here(again.settings)}
    assert lanes == {
        mr_dataset(1).SOPInstanceUID: Lane.URGENT,
        mr_dataset(2).SOPInstanceUID: Lane.URGENT,
        mr_dataset(1, study=2).SOPInstanceUID: Lane.BULK,
    }


def send(edge: RunningEdge, calling_ae: bytes, dataset: Dataset) -> None:
    with edge.peer() as peer:
        peer.associate((1, MR_IMAGE_STORAGE, (EXPLICIT_LE,)), calling_ae=calling_ae)
        assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0


def actor(path: Path, lane: Lane, first: int, count: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.ingest.lane_actor", str(path), lane.value, str(first), str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_processes_that_start_together_agree(path: Path) -> None:
    actors = [actor(path, lane, 0, 500) for lane in (Lane.URGENT, Lane.BULK, Lane.ROUTINE)]
    told = [one.communicate(timeout=TIMEOUT_S)[0].split() for one in actors]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) == 500


def test_a_killed_process_leaves_a_sound_file(path: Path) -> None:
    one = actor(path, Lane.URGENT, 0, 10**9)
    assert one.stdout is not None
    told = [one.stdout.readline().strip() for _ in range(300)]
    one.kill()
    one.communicate(timeout=TIMEOUT_S)
    with capture_logs() as logs, opened(path, studies_max=10**9) as store:
        assert [store.decide("default", f"1.2.{number}", Lane.BULK).value for number in range(300)] == told
    assert logs == []


def test_threads_of_one_process_agree_while_the_store_fails(path: Path) -> None:
    path.parent.write_bytes(b"")
    told: list[Lane] = []
    with opened(path) as store:
        lanes = Lanes(parse_rules("ER=urgent,PACS=bulk"), Lane.ROUTINE, store=store)
        senders = [sender("ER"), sender("PACS"), sender()] * 4
        threads = [threading.Thread(target=lambda who=who: told.append(lane_of(lanes, who=who))) for who in senders]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert len(told) == 12
    assert len(set(told)) == 1
