"""The replay: its profiles and schedule are what they say, and its smallest size runs, so that it cannot rot."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydicom.filereader import read_dataset

from benchmarks.replay_mri import __main__ as replay_mri
from benchmarks.replay_mri.content import ExamContent, pictures
from benchmarks.replay_mri.devices import Device, devices_of
from benchmarks.replay_mri.profile import DEPARTMENT, GB, HOUR_S, MB, PROFILES, STRESS, WEEK_S, Profile
from benchmarks.replay_mri.report import percentiles
from benchmarks.replay_mri.schedule import Exam, due_within, week, within
from benchmarks.replay_mri.sender import Senders
from benchmarks.replay_mri.sink import sink
from benchmarks.replay_mri.tally import Plan
from benchmarks.replay_mri.targets import embedded
from benchmarks.replay_mri.urgent import migration
from schemas.message import Lane

_MONDAY_10_S = 10 * HOUR_S


def test_the_stress_profile_is_the_national_cloud() -> None:
    assert STRESS.exams_week == 16_500
    assert STRESS.devices == {"MR": 55}
    assert STRESS.exam_bytes == pytest.approx(4 * GB)
    assert STRESS.mean_bytes_per_s == pytest.approx(109 * MB, rel=0.01)
    assert STRESS.working_bytes_per_s == pytest.approx(306 * MB, rel=0.01)


def test_the_department_profile_is_two_million_exams_a_year_fifty_times_smaller() -> None:
    assert DEPARTMENT.exams_week * 52 == pytest.approx(2_000_000, rel=0.01)
    assert STRESS.exam_bytes / DEPARTMENT.exam_bytes == pytest.approx(50)
    assert DEPARTMENT.sized(160 * MB).bytes_week == pytest.approx(2 * DEPARTMENT.bytes_week)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
@pytest.mark.parametrize(("scale", "seed"), [(1.0, 1), (1.0, 2), (0.25, 3)])
def test_a_scheduled_week_has_the_profiles_totals(profile: Profile, scale: float, seed: int) -> None:
    exams = week(profile, scale=scale, seed=seed)
    instances = sum(kind.exams_week * kind.instances.mean for kind in profile.kinds)
    assert len(exams) == pytest.approx(profile.exams_week * scale, rel=0.01)
    assert sum(exam.size_bytes for exam in exams) == pytest.approx(profile.bytes_week * scale, rel=0.01)
    assert sum(exam.instances for exam in exams) == pytest.approx(instances * scale, rel=0.01)
    lanes = Counter(exam.lane for exam in exams)
    assert lanes[Lane.URGENT] == pytest.approx(profile.urgent_share * len(exams), rel=0.01)
    assert lanes[Lane.BULK] == pytest.approx(profile.bulk_share * len(exams), rel=0.01)


def test_exams_come_by_day_more_than_by_night() -> None:
    by_hour = Counter(int(exam.start_s // HOUR_S) for exam in week(STRESS, scale=1, seed=1))
    assert set(by_hour) <= set(range(WEEK_S // HOUR_S))
    working = sum(by_hour[24 * day + hour] for day in range(5) for hour in range(8, 20))
    assert working > 0.9 * STRESS.exams_week
    for hour in (10, 24 + 15, 4 * 24 + 9):  # stratified: an hour has its share, whatever the seed
        other = Counter(int(exam.start_s // HOUR_S) for exam in week(STRESS, scale=1, seed=99))[hour]
        assert other == pytest.approx(by_hour[hour], rel=0.02)
    assert by_hour[10] > 50 * by_hour[3]
    assert by_hour[10] > 10 * by_hour[5 * 24 + 10]


def test_a_schedule_is_the_same_for_the_same_seed_alone() -> None:
    assert week(STRESS, scale=0.05, seed=5) == week(STRESS, scale=0.05, seed=5)
    assert week(STRESS, scale=0.05, seed=5) != week(STRESS, scale=0.05, seed=6)


def test_a_scale_takes_a_share_of_the_devices() -> None:
    def names(scale: float) -> set[str]:
        return {exam.device for exam in week(STRESS, scale=scale, seed=1) if exam.lane is not Lane.BULK}

    assert len(names(1)) == 55
    assert len(names(0.2)) == 11
    assert len(names(0.001)) == 1


def test_windows_share_out_the_instances_of_an_exam_without_rest() -> None:
    exam = week(STRESS, scale=0.01, seed=1)[3]
    edges_s = np.linspace(exam.start_s - 7, exam.start_s + exam.sending_s + 7, 23)
    found: list[int] = []
    for begin_s, end_s in itertools.pairwise(edges_s):
        found += due_within(exam, begin_s=float(begin_s), seconds=float(end_s - begin_s))
    assert found == list(range(exam.instances))


def test_the_window_at_ten_offers_the_load_of_working_hours() -> None:
    exams = week(STRESS, scale=1, seed=1)
    window = within(exams, begin_s=_MONDAY_10_S, seconds=HOUR_S)
    offered = sum(len(due_within(exam, begin_s=_MONDAY_10_S, seconds=HOUR_S)) * exam.instance_bytes for exam in window)
    assert 306 * MB < offered / HOUR_S < 400 * MB


@pytest.mark.parametrize("kind", [kind.name for kind in DEPARTMENT.kinds if kind.name != "tomosynthesis"])
def test_instances_of_an_exam_differ_in_what_is_stamped_alone(kind: str) -> None:
    exam = next(exam for exam in week(DEPARTMENT, scale=0.1, seed=1) if exam.kind.name == kind)
    content = ExamContent(exam, run=123_456_789)
    seen = set()
    for index in (0, 1, 999, 250_000):
        uid, encoded = content.instance(index)
        assert len(encoded) == pytest.approx(exam.instance_bytes, rel=0.05, abs=60_000)
        dataset = read_dataset(io.BytesIO(bytes(encoded)), False, True)
        assert dataset.SOPInstanceUID == uid == content.names.instance(index)
        assert dataset.StudyInstanceUID == content.names.study
        assert dataset.SeriesInstanceUID == content.names.series(index)
        assert dataset.InstanceNumber == index + 1
        seen.add(uid)
    assert len(seen) == 4
    assert all(len(uid) <= 64 for uid in seen)


def test_percentiles_are_of_what_was_measured() -> None:
    assert percentiles([]) == {}
    assert percentiles([0.5]) == {"count": 1, "p50": 0.5, "p95": 0.5, "p99": 0.5, "max": 0.5}
    assert percentiles([float(one) for one in range(100)])["p99"] == 99.0


def _plan(*ports: int, seconds: float = 1.0) -> Plan:
    pictures()  # drawing them takes a moment that is not the window's
    return Plan(
        host="127.0.0.1",
        ports=ports,
        starts_s=time.monotonic() + 1.0,  # processes are forked by then
        seconds=seconds,
        begin_s=_MONDAY_10_S,
        speed_up=1,
        run=123_456_789,
        probes_per_s=0,
    )


def test_paced_devices_send_what_is_due_and_nothing_else() -> None:
    exams = week(STRESS, scale=0.1, seed=1)
    devices = devices_of(exams, begin_s=_MONDAY_10_S, seconds=1.0, paced=True)
    due = sum(len(due_within(exam, begin_s=_MONDAY_10_S, seconds=1.0)) for device in devices for exam in device.exams)
    with sink() as (port, _), closing(Senders(devices, _plan(port), processes=1)) as senders:
        tally = senders.result(timeout_s=30)
        assert senders.so_far() == (sum(tally.instances.values()), sum(tally.sent_bytes.values()))
    assert 0 < sum(tally.instances.values()) <= due  # on a busy machine some are late for the window
    assert not tally.refused
    assert tally.associations_lost == 0


def test_a_producer_keeps_its_quota() -> None:
    devices = migration(STRESS.kinds[0], devices=2, begin_s=_MONDAY_10_S, mb_per_s=6)
    with sink() as (port, _), closing(Senders(devices, _plan(port), processes=1)) as senders:
        tally = senders.result(timeout_s=30)
    assert 0 < tally.sent_bytes[Lane.BULK] <= 2 * 6 * MB  # a second's worth may be made up for
    assert list(tally.instances) == [Lane.BULK]


def test_a_receiver_that_is_away_is_counted_and_asked_again() -> None:
    with sink() as (port, _):
        pass
    exam: Exam = week(STRESS, scale=0.001, seed=1)[0]
    device = Device(ae_title="MR_001", exams=(exam,), associations=1, paced=False)
    with closing(Senders([device], _plan(port), processes=1)) as senders:
        tally = senders.result(timeout_s=30)
    assert tally.associations_lost >= 2
    assert not tally.instances


def test_devices_take_turns_among_the_edges() -> None:
    with sink() as (away, _):
        pass
    first, second = migration(STRESS.kinds[0], devices=2, begin_s=_MONDAY_10_S, mb_per_s=6)
    with sink() as (port, _), closing(Senders([first, second], _plan(port, away), processes=1)) as senders:
        tally = senders.result(timeout_s=30)
    assert tally.associations == 1
    assert 0 < tally.sent_bytes[Lane.BULK] <= 2 * 3 * MB  # of two devices, one has an edge
    assert tally.associations_lost >= 2


def test_a_hundredth_of_the_region_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "picture.svg"
    sizes = ["--scale", "0.02", "--seconds", "2", "--saturate", "--ceiling-s", "0.5", "--probes-per-s", "20"]
    limits = ["--transcode", "keep", "--inline-max-bytes", "65536", "--folder", str(tmp_path)]
    replay_mri.main([*sizes, *limits, "--json", str(report), "--picture", str(picture)])
    said = json.loads(report.read_text())
    (run,) = said["runs"].values()
    assert run["instances"] > 0
    assert run["waiting"]["drain_s"] is not None
    assert run["samples"][-1]["committed"] == run["instances"] == run["samples"][-1]["acknowledged"]
    assert run["sender"]["probes"]["unreadable"] == 0
    assert run["latency_s"]["routine"]["acknowledge"]["p99"] > 0
    assert run["latency_s"]["routine"]["readable"]["p99"] > 0
    assert {"edge", "worker", "web"} == set(run["roles"])
    assert run["roles"]["edge"]["written_per_byte"] > 0.9
    assert run["projection"]["cores_for_stress_working_hours"] > 0
    assert 0 <= run["machine"]["others_share"] < 1
    assert said["ceiling"]["instances_per_s"] > 0
    assert said["context"]["ceilings"]["disk_mib_per_s"] > 0
    assert picture.read_text().startswith("<svg")
    assert "of the stress profile" in capsys.readouterr().out


def test_a_system_that_runs_already_is_paced_by_the_schedule(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    sizes = ["--scale", "0.02", "--seconds", "2", "--ceiling-s", "0", "--json", str(report), "--folder", str(tmp_path)]
    with embedded(tmp_path / "data", transcode="keep", SANSFILM_BULK_WAIT_S="0.5") as target:
        where = ["--target", f"{target.host}:{target.ports[0]}", "--web", target.web]
        for _ in range(2):  # what the first one left is not counted for the second
            replay_mri.main([*sizes, *where, "--pid", f"worker={target.pids['worker'][0]}"])
            (run,) = json.loads(report.read_text())["runs"].values()
            assert 0 < run["instances"] <= run["offered"]["instances_per_s"] * 2
            assert run["samples"][-1]["committed"] == run["samples"][-1]["acknowledged"] == run["instances"]
            assert list(run["roles"]) == ["worker"]
            assert not run["projection"]


def test_the_urgent_lane_is_measured_alone_and_beside_bulk(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    load = ["--urgent-under-load", "--seconds", "2", "--bulk-devices", "2", "--bulk-mb-per-s", "5"]
    replay_mri.main([*load, "--probes-per-s", "20", "--folder", str(tmp_path), "--json", str(report)])
    said = json.loads(report.read_text())
    assert list(said["runs"]) == ["htj2k, quiet", "htj2k, bulk at 5 MB/s"]
    assert said["urgent"]["htj2k"]["quiet"]["count"] > 0
    assert said["urgent"]["htj2k"]["loaded"][0]["count"] > 0
    assert len(said["urgent"]["htj2k"]["ratio_p99"]) == 1
