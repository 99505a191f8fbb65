"""What the benchmark of scaling counts with: an even load, windows of events, the account."""

from __future__ import annotations

import itertools
import time
from contextlib import closing

import pytest

from benchmarks.replay_mri.gauges import MachineUsage
from benchmarks.replay_mri.sink import sink
from benchmarks.scaling.account import Filed, balance, spread
from benchmarks.scaling.events import Commit, Event, windows
from benchmarks.scaling.legs import AS_IT_IS, SAME_BATCHES, Case, Leg, cases, cost, medians, order, ratio, series
from benchmarks.scaling.load import INSTANCES_MAX, Load, Offer
from benchmarks.scaling.pool import Look, parsed
from benchmarks.scaling.report import leg_figures, summary

_MACHINE = MachineUsage(busy_s=10.0, disk_wait_s=1.0, idle_s=9.0, stolen_s=0.0)


def _offer(rate: float) -> Offer:
    return Offer(instances_per_s=rate, instance_bytes=8_000, study_instances=5, run=123_456_789)


def test_devices_offer_one_rate_evenly_in_studies_of_their_own() -> None:
    offer = _offer(25.0)
    exams = [exam for device in offer.devices(seconds=7.0, first_study=30) for exam in device.exams]
    due_s = sorted(exam.due_s(index) for exam in exams for index in range(exam.instances))
    assert {round(later - sooner, 6) for sooner, later in itertools.pairwise(due_s)} == {0.04}
    assert due_s[0] == 0
    assert due_s[-1] >= 7.0 - 0.04
    assert sorted(exam.number for exam in exams) == list(range(30, 30 + offer.studies(7.0)))


def test_every_instance_acknowledged_is_told_once() -> None:
    offer = _offer(400.0)
    with (
        sink() as (port, _),
        closing(Load(port, offer.devices(seconds=1.0, first_study=0), offer, seconds=1.0)) as load,
    ):
        began_s = time.monotonic()
        sent = load.result()
    told = [one.instance for one in sent.acknowledged]
    assert len(told) == len(set(told)) == sent.tally.instances["routine"] > 0
    assert all(began_s < one.at_s < time.monotonic() for one in sent.acknowledged)


def test_a_load_that_cannot_be_remembered_is_refused() -> None:
    with pytest.raises(ValueError, match="100,000"):
        Load(1, [], _offer(INSTANCES_MAX), seconds=2.0)


def test_a_worker_says_what_it_has_done() -> None:
    page = (
        "# TYPE sansfilm_verdicts counter\n"
        'sansfilm_verdicts_total{verdict="new"} 7\nsansfilm_verdicts_total{verdict="same"} 2\n'
        'sansfilm_verdicts_total{verdict="decision"} 1\n'
        "# TYPE sansfilm_batch_seconds histogram\n"
        'sansfilm_batch_seconds_count{step="commit"} 3\nsansfilm_batch_seconds_count{step="put"} 4\n'
        '# TYPE sansfilm_log_partitions gauge\nsansfilm_log_partitions{lane="routine"} 6\n'
    )
    now = parsed(page, cpu_s=1.5)
    assert now == Look(instances=9, batches=3, cpu_s=1.5, partitions=6)
    assert now.since(Look(instances=4, batches=1, cpu_s=0.5, partitions=12)) == Look(
        instances=5, batches=2, cpu_s=1.0, partitions=6
    )


def _leg(workers: int, *, cpu_ms: float, idle_ms_per_s: float = 0.0, wait_s: float = 0.25, batch: int = 4) -> Leg:
    looks = [Look(instances=100, batches=100 // batch, cpu_s=cpu_ms / 10, partitions=3) for _ in range(workers)]
    return Leg(
        case=Case(workers=workers, wait_s=wait_s),
        seconds=10.0,
        by_worker=looks,
        idle_ms_per_s=idle_ms_per_s,
        machine=_MACHINE,
        others_s=2.0,
    )


def test_legs_are_compared_by_their_medians() -> None:
    legs = [_leg(1, cpu_ms=8.0), _leg(2, cpu_ms=8.4), _leg(2, cpu_ms=30.0), _leg(2, cpu_ms=8.8), _leg(1, cpu_ms=8.0)]
    assert medians(legs) == pytest.approx({1: 8.0, 2: 8.8})
    assert ratio(legs) == pytest.approx(1.1)


def test_legs_with_batches_of_one_size_are_judged_apart() -> None:
    legs = [
        _leg(1, cpu_ms=8.0, batch=20),
        _leg(2, cpu_ms=12.0, batch=4),
        _leg(2, cpu_ms=8.2, batch=20, wait_s=0.5),
        _leg(4, cpu_ms=8.8, batch=20, wait_s=1.0),
    ]
    assert {name: len(of) for name, of in series(legs).items()} == {AS_IT_IS: 2, SAME_BATCHES: 3}
    said = summary(legs)
    assert (said[AS_IT_IS]["ratio"], said[AS_IT_IS]["met"]) == (1.5, False)
    assert (said[SAME_BATCHES]["ratio"], said[SAME_BATCHES]["met"]) == (1.1, True)


def test_a_batch_and_an_instance_have_their_costs() -> None:
    legs = [_leg(1, cpu_ms=7.0, batch=20), _leg(2, cpu_ms=11.0, batch=4), _leg(4, cpu_ms=16.0, batch=2)]
    of_all = cost(legs)
    assert (of_all.batch_ms, of_all.instance_ms) == pytest.approx((20.0, 6.0))
    assert of_all.batch_least == pytest.approx(20 / 0.9)
    assert cost(legs[:1]).instance_ms == pytest.approx(7.0)


def test_what_waiting_costs_is_told_apart() -> None:
    leg = _leg(4, cpu_ms=9.0, idle_ms_per_s=20.0)
    assert leg.idle_ms == pytest.approx(2.0)  # 20 ms/s x 4 workers x 10 s for 400 instances
    figures = leg_figures(leg)
    assert figures["batch_instances_mean"] == 4.0
    assert figures["fullest_worker_over_mean"] == 1.0
    assert (figures["machine_busy_share"], figures["others_share"]) == (0.5, 0.1)


def test_every_case_goes_forwards_and_backwards() -> None:
    of = cases([1, 2, 4], 0.25)
    assert [(case.workers, case.wait_s) for case in of] == [(1, 0.25), (2, 0.25), (4, 0.25), (2, 0.5), (4, 1.0)]
    assert order(of, 2) == [*of, *of[::-1]]


def test_waits_belong_to_the_event_before_their_commit() -> None:
    events = [Event(name="quiet", at_s=0.0), Event(name="killed", at_s=10.0), Event(name="back", at_s=20.0)]
    commits = [
        Commit(partition="a/0", acknowledged_s=-2.0, committed_s=-1.0),  # before it all
        Commit(partition="a/0", acknowledged_s=1.0, committed_s=1.5),
        Commit(partition="a/2", acknowledged_s=11.0, committed_s=11.75),
        Commit(partition="a/1", acknowledged_s=9.0, committed_s=16.0),
        Commit(partition="a/1", acknowledged_s=12.0, committed_s=16.5),
        Commit(partition="a/0", acknowledged_s=18.0, committed_s=18.25),
    ]
    quiet, killed, back = windows(events, commits)
    assert (quiet.instances, quiet.wait_s_max, quiet.slow, quiet.settled_s) == (1, 0.5, 0, 0.0)
    assert (killed.instances, killed.wait_s_max, killed.wait_s_median) == (4, 7.0, 2.625)
    assert (killed.slow, killed.slow_partitions, killed.settled_s) == (2, 1, 6.5)
    assert back.instances == 0


def test_an_account_misses_nothing() -> None:
    whole = balance(["a", "b"], {"a": 1, "b": 1}, counted=2, unanswered=0, verified=True)
    assert whole.is_whole
    assert not balance(["a", "b"], {"a": 1}, counted=1, unanswered=0, verified=True).is_whole
    doubled = balance(["a", "b"], {"a": 2, "b": 1}, counted=3, unanswered=0, verified=True)
    assert (doubled.doubled, doubled.is_whole) == (1, False)
    assert not balance(["a"], {"a": 1}, counted=1, unanswered=0, verified=False).is_whole


def test_what_got_no_answer_may_be_committed() -> None:
    lost = balance(["a"], {"a": 1, "b": 1}, counted=2, unanswered=1, verified=True)
    assert (lost.unacknowledged, lost.is_whole) == (1, True)
    assert not balance(["a"], {"a": 1, "b": 1}, counted=2, unanswered=0, verified=True).is_whole


def test_spread_stands_beside_chance() -> None:
    rows = [
        Filed(
            sop_instance_uid=f"{study}.{number}",
            study_instance_uid=str(study),
            partition=f"a/{study % 4}",
            committed_s=0.0,
        )
        for study in range(40)
        for number in range(5)
    ]
    even = spread(rows, partitions=4)
    assert (even.instances, even.studies, even.fullest_over_mean) == (200, 40, 1.0)
    assert 1.0 < even.by_chance < even.by_chance_p95 < 4.0
