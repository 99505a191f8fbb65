"""The figures: as JSON, and as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks.scaling.account import Account, Spread
from benchmarks.scaling.events import Window
from benchmarks.scaling.legs import AS_IT_IS, RATIO_MAX, SAME_BATCHES, Leg, cost, medians, ratio, series
from cli.output import table


def leg_figures(leg: Leg) -> dict[str, Any]:
    """A leg in units a reader compares."""
    total_s = leg.machine.busy_s + leg.machine.idle_s + leg.machine.disk_wait_s + leg.machine.stolen_s
    return {
        "workers": leg.workers,
        "wait_s": leg.case.wait_s,
        "seconds": round(leg.seconds, 2),
        "instances": leg.instances,
        "instances_per_s": round(leg.instances / leg.seconds, 2),
        "cpu_ms_per_instance": round(leg.cpu_ms, 3),
        "idle_ms_per_instance": round(leg.idle_ms, 3),
        "idle_ms_per_s_and_worker": round(leg.idle_ms_per_s, 2),
        "batch_instances_mean": round(leg.batch, 2),
        "instances_by_worker": [one.instances for one in leg.by_worker],
        "partitions_by_worker": [one.partitions for one in leg.by_worker],
        "fullest_worker_over_mean": round(leg.unevenness, 3),
        "machine_busy_share": round(leg.machine.busy_s / total_s, 3) if total_s else 0.0,
        "others_share": round(leg.others_s / total_s, 3) if total_s else 0.0,
    }


def summary(legs: Sequence[Leg]) -> dict[str, Any]:
    """The verdict on CPU of an instance, and what it is made of."""
    of_all = cost(legs)
    return {
        "ratio_max": RATIO_MAX,
        **{
            name: {
                "cpu_ms_per_instance_median": {count: round(each, 3) for count, each in medians(of_series).items()},
                "ratio": round(ratio(of_series), 3),
                "met": ratio(of_series) <= RATIO_MAX,
            }
            for name, of_series in series(legs).items()
        },
        "batch_ms": round(of_all.batch_ms, 2),
        "instance_ms": round(of_all.instance_ms, 2),
        "batch_instances_least": round(of_all.batch_least, 1),
    }


def legs_table(legs: Sequence[Leg]) -> Table:
    """A row for each number of workers."""
    columns = (
        "workers", "wait for a batch s", "CPU ms an instance", "(min - max)", "idle in it", "instances a batch",
        "fullest worker / mean", "instances/s", "machine busy", "of it others",
    )  # fmt: skip
    return table("one load, user and system time of the workers", columns, _rows(legs))


def events_table(windows: Sequence[Window]) -> Table:
    """A row for each event."""
    columns = (
        "",
        "committed",
        "wait s, median",
        "longest",
        "more than twice the quiet's longest",
        "in partitions",
        "until s after",
    )
    rows = [
        (
            one.name,
            one.instances,
            f"{one.wait_s_median:.2f}",
            f"{one.wait_s_max:.2f}",
            one.slow or "",
            one.slow_partitions or "",
            f"{one.settled_s:.1f}" if one.slow else "",
        )
        for one in windows
    ]
    return table("acknowledged -> committed, from each event to the next", columns, rows)


def verdict_lines(legs: Sequence[Leg], spread: Spread, account: Account) -> Iterator[str]:
    """What it comes to, in sentences."""
    said = summary(legs)
    for name in (AS_IT_IS, SAME_BATCHES):
        met, found = "met" if said[name]["met"] else "not met", said[name]["ratio"]
        yield f"CPU of an instance, {name}: dearest over cheapest {found:.2f} (at most {RATIO_MAX}: {met})"
    yield (
        f"through all legs: a batch costs {said['batch_ms']:.1f} ms, an instance in it {said['instance_ms']:.1f} ms: "
        f"from {said['batch_instances_least']:.0f} instances in a batch on, batches add less than {RATIO_MAX - 1:.0%}"
    )
    yield (
        f"{spread.instances:,} instances of {spread.studies:,} studies in {spread.places} partitions, fullest over "
        f"mean: {spread.fullest_over_mean:.2f} (by chance {spread.by_chance:.2f}, 95th percentile "
        f"{spread.by_chance_p95:.2f})"
    )
    yield (
        f"{account.acknowledged:,} acknowledged, {account.committed:,} committed: {account.missing} missing, "
        f"{account.doubled} doubled, {account.unacknowledged} never acknowledged; archive verify "
        f"{'clean' if account.verified else 'NOT CLEAN'}"
    )


def figures(
    context: dict[str, Any], legs: Sequence[Leg], windows: Sequence[Window], spread: Spread, account: Account
) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "context": context,
        "cpu": summary(legs),
        "legs": [leg_figures(leg) for leg in legs],
        "events": [asdict(window) for window in windows],
        "spread": asdict(spread),
        "account": {**asdict(account), "is_whole": account.is_whole},
    }


def _rows(legs: Sequence[Leg]) -> Iterator[Sequence[object]]:
    for case in sorted({leg.case for leg in legs}, key=lambda case: (case.wait_s > _shortest_s(legs), case.workers)):
        mine = [leg for leg in legs if leg.case == case]
        costs_ms = [leg.cpu_ms for leg in mine]
        said = [leg_figures(leg) for leg in mine]

        def median(name: str, said: Sequence[dict[str, Any]] = said) -> float:
            return float(statistics.median(one[name] for one in said))

        yield (
            case.workers,
            f"{case.wait_s:g}",
            f"{statistics.median(costs_ms):.2f}",
            f"({min(costs_ms):.2f} - {max(costs_ms):.2f})",
            f"{median('idle_ms_per_instance'):.2f}",
            f"{median('batch_instances_mean'):.1f}",
            f"{median('fullest_worker_over_mean'):.2f}",
            f"{median('instances_per_s'):.1f}",
            f"{median('machine_busy_share'):.0%}",
            f"{median('others_share'):.0%}",
        )


def _shortest_s(legs: Sequence[Leg]) -> float:
    return min(leg.case.wait_s for leg in legs)
