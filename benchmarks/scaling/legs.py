"""What an instance costs the workers, with one number of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from benchmarks.processes import usage_of
from benchmarks.replay_mri.gauges import MachineUsage, machine_usage
from benchmarks.scaling.load import Load, Offer, Sent
from benchmarks.scaling.pool import Look, Pool
from region.cluster import Cluster

#: What the lane's numbers of workers may differ by in CPU of an instance.
RATIO_MAX: Final = 1.15
AS_IT_IS: Final = "as it is"
SAME_BATCHES: Final = "batches of one size"
_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a leg's parts are, in seconds."""

    #: Workers that wait for something to do.
    idle_s: float
    #: Load before the window.
    warm_s: float
    #: The window.
    seconds: float

    @property
    def load_s(self) -> float:
        return self.warm_s + self.seconds + _AFTER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pool to measure."""

    workers: int
    #: Longest wait of each to fill a batch (`routine_wait_s`).
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a batch and an instance cost the workers, waiting left out: the straight line through all legs."""

    batch_ms: float
    instance_ms: float

    @property
    def batch_least(self) -> float:
        """Instances in a batch from which on batches add no more than `RATIO_MAX` allows."""
        return max(0.0, self.batch_ms) / max(1e-9, (RATIO_MAX - 1) * self.instance_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One pool under the load, in the window."""

    case: Case
    seconds: float
    #: What each worker did.
    by_worker: Sequence[Look]
    #: CPU of a worker that waits, milliseconds a second.
    idle_ms_per_s: float
    machine: MachineUsage
    #: Processor time of neither the region nor its sender.
    others_s: float

    @property
    def workers(self) -> int:
        return self.case.workers

    @property
    def instances(self) -> int:
        return sum(one.instances for one in self.by_worker)

    @property
    def cpu_ms(self) -> float:
        """User and system time of an instance, all workers together."""
        return sum(one.cpu_s for one in self.by_worker) / max(1, self.instances) * 1e3

    @property
    def idle_ms(self) -> float:
        """Of that, what the workers would have spent without any load."""
        return self.idle_ms_per_s * self.workers * self.seconds / max(1, self.instances)

    @property
    def batch(self) -> float:
        """Instances in a batch, in the mean."""
        return self.instances / max(1, sum(one.batches for one in self.by_worker))

    @property
    def unevenness(self) -> float:
        """Of the worker that did most, how many times the mean."""
        return max(one.instances for one in self.by_worker) * self.workers / max(1, self.instances)


def cases(counts: Sequence[int], wait_s: float) -> list[Case]:
    """Each number of workers as it is; then those that would have smaller batches, waiting longer instead."""
    return [
        *(Case(workers=count, wait_s=wait_s) for count in counts),
        *(
            Case(workers=count, wait_s=_same_batches_s(counts, count, wait_s))
            for count in counts
            if count > min(counts)
        ),
    ]


def order(of: Sequence[Case], rounds: int) -> list[Case]:
    """Every case once a round, forwards and backwards in turn: a drift of the machine evens out."""
    return [case for number in range(rounds) for case in (of if number % 2 == 0 else of[::-1])]


def series(legs: Sequence[Leg]) -> Mapping[str, Sequence[Leg]]:
    """The legs as they are, and those whose batches have the size of the smallest pool's."""
    counts, wait_s = [leg.workers for leg in legs], min(leg.case.wait_s for leg in legs)
    return {
        AS_IT_IS: [leg for leg in legs if leg.case.wait_s == wait_s],
        SAME_BATCHES: [leg for leg in legs if leg.case.wait_s == _same_batches_s(counts, leg.workers, wait_s)],
    }


def measure(
    cluster: Cluster, pool: Pool, offer: Offer, timing: Timing, case: Case, *, first_study: int
) -> tuple[Leg, Sent]:
    """Start the workers, watch them wait, load them, and drain them."""
    pool.start(case.workers, SANSFILM_ROUTINE_WAIT_S=str(case.wait_s))
    waiting = pool.looks()
    time.sleep(timing.idle_s)
    idle_s = sum(look.since(waiting[number]).cpu_s for number, look in pool.looks().items())
    devices = offer.devices(seconds=timing.load_s, first_study=first_study)
    with closing(Load(cluster.dicom_ports[0], devices, offer, seconds=timing.load_s)) as load:
        load.wait_until(timing.warm_s)
        began_s, before, machine, ours = time.monotonic(), pool.looks(), machine_usage(), usage_of(os.getpid())
        load.wait_until(timing.warm_s + timing.seconds)
        after, seconds = pool.looks(), time.monotonic() - began_s
        machine, ours = machine_usage().since(machine), usage_of(os.getpid()).since(ours)
        sent = load.result()
    cluster.drained()
    pool.stop()
    leg = Leg(
        case=case,
        seconds=seconds,
        by_worker=[look.since(before[number]) for number, look in sorted(after.items())],
        idle_ms_per_s=idle_s / case.workers / timing.idle_s * 1e3 if timing.idle_s else 0.0,
        machine=machine,
        others_s=max(0.0, machine.busy_s - ours.cpu_s),
    )
    return leg, sent


def medians(legs: Sequence[Leg]) -> Mapping[int, float]:
    """CPU milliseconds of an instance by number of workers."""
    by_count = {leg.workers: [one.cpu_ms for one in legs if one.workers == leg.workers] for leg in legs}
    return {count: statistics.median(costs) for count, costs in sorted(by_count.items())}


def ratio(legs: Sequence[Leg]) -> float:
    """The dearest number of workers over the cheapest."""
    costs = medians(legs).values()
    return max(costs) / min(costs)


def cost(legs: Sequence[Leg]) -> Cost:
    """Least squares over all legs; of legs with one size of batch, everything is the instance's."""
    shares = [1 / leg.batch for leg in legs]
    costs_ms = [leg.cpu_ms - leg.idle_ms for leg in legs]
    if len(set(shares)) < 2:
        return Cost(batch_ms=0.0, instance_ms=statistics.mean(costs_ms))
    batch_ms, instance_ms = statistics.linear_regression(shares, costs_ms)
    return Cost(batch_ms=batch_ms, instance_ms=instance_ms)


def _same_batches_s(counts: Sequence[int], count: int, wait_s: float) -> float:
    return wait_s * count / min(counts)
