"""The figures: as JSON, and as one table with a column for each run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks import ceilings
from benchmarks.replay_mri.gauges import Sample
from benchmarks.replay_mri.profile import MB, STRESS
from benchmarks.replay_mri.replay import Ceiling, Outcome
from cli.output import table
from schemas.message import Lane

MIB: Final = 1024 * 1024
#: Who is done with an instance when it is in the log.
_UNTIL_SHIPPED: Final = ("forwarder", "broker")
_PARTS: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def context(work: Path) -> dict[str, object]:
    """Where and on what a run was made, with the machine's own ceilings."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "host": {
            "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": sys.version.split()[0],
        },
        "commit": commit.stdout.strip(),
        "ceilings": {**ceilings.disk_sync(work), **ceilings.loopback()},
    }


def percentiles(latencies_s: Sequence[float]) -> dict[str, float]:
    """Count, p50, p95, p99 and the largest, in seconds; empty without any."""
    if not latencies_s:
        return {}
    ordered = sorted(latencies_s)
    parts = {name: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 4) for name, part in _PARTS.items()}
    return {"count": len(ordered), **parts, "max": round(ordered[-1], 4)}


def figures(outcome: Outcome) -> dict[str, Any]:
    """What a run came to, in units a reader compares."""
    whole_s = outcome.seconds + (outcome.drain_s or 0.0)
    roles = {role: _cost(outcome, role) for role in outcome.usage}
    in_window = [sample.committed for sample in outcome.samples if sample.at_s <= outcome.seconds]
    return {
        "instances": outcome.instances,
        "bytes": outcome.sent_bytes,
        "seconds": outcome.seconds,
        "offered": _rate(outcome.offered_instances, outcome.offered_bytes, outcome.seconds),
        "acknowledged": _rate(outcome.instances, outcome.sent_bytes, outcome.seconds),
        "committed_in_window_per_s": round(max(in_window, default=0) / outcome.seconds, 1),
        "committed": _rate(outcome.instances, outcome.sent_bytes, whole_s) if outcome.drain_s is not None else None,
        "share_of_stress": _shares(outcome.sent_bytes / whole_s) if outcome.drain_s is not None else None,
        "waiting": {
            "max": outcome.waiting_max,
            "at_end_of_window": _at_end(outcome, lambda sample: sample.waiting),
            "spooled_at_end_of_window": _at_end(outcome, lambda sample: sample.spooled),
            "drain_s": outcome.drain_s,
        },
        "latency_s": {
            lane.value: {
                "acknowledge": percentiles(outcome.tally.latencies_s[lane]),
                "readable": percentiles(outcome.found.latencies_s[lane]),
                "unreadable": outcome.found.unreadable.get(lane, 0),
            }
            for lane in Lane
            if outcome.tally.latencies_s[lane]
        },
        "roles": roles,
        "all_roles": _together(outcome, roles),
        "sender": _sender(outcome),
        "machine": {
            **asdict(outcome.machine),
            "gauges_cpu_s": round(outcome.own_cpu_s, 2),
            "others_share": round(outcome.others_share, 3),
        },
        "projection": projection(outcome),
        "samples": [asdict(sample) for sample in outcome.samples],
    }


def projection(outcome: Outcome) -> dict[str, float]:
    """What a core does and what the stress profile takes, if cost is by byte: senders and probes are left out.

    Only of a run that saturated and was drained: an idle system spends its time on waiting and on our questions.
    """
    cpu_s = sum(usage.cpu_s for usage in outcome.usage.values())
    if not cpu_s or not outcome.instances or outcome.offered_instances or outcome.drain_s is None:
        return {}
    per_core = outcome.sent_bytes / cpu_s
    return {
        "cpu_ms_per_instance": round(cpu_s / outcome.instances * 1e3, 2),
        "instances_per_s_and_core": round(outcome.instances / cpu_s, 1),
        "mb_per_s_and_core": round(per_core / MB, 1),
        "cores_for_stress_mean": round(STRESS.mean_bytes_per_s / per_core, 2),
        "cores_for_stress_working_hours": round(STRESS.working_bytes_per_s / per_core, 2),
    }


def side_by_side(runs: Mapping[str, Outcome], ceiling: Ceiling | None) -> Table:
    """Figures down, runs across."""
    title = (
        ""
        if ceiling is None
        else (
            f"sender alone, into a sink: {ceiling.instances_per_s:,.0f} instances/s, "
            f"{ceiling.bytes_per_s / MB:,.0f} MB/s, "
            f"{ceiling.cpu_ms_per_instance} ms CPU an instance"
        )
    )
    return table(title, ("", *runs), _rows(runs))


def markdown(runs: Mapping[str, Outcome]) -> str:
    """The same as a table for a page."""
    lines = [("", *runs), ("---",) * (len(runs) + 1), *_rows(runs)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows(runs: Mapping[str, Outcome]) -> list[tuple[str, ...]]:
    columns = [_column(figures(outcome)) for outcome in runs.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "") for column in columns)) for name in names]


def _column(of: Mapping[str, Any]) -> dict[str, str]:
    column = {"acknowledged /s": f"{of['acknowledged']['instances_per_s']:,.0f} ({_mb(of['acknowledged'])})"}
    if of["offered"]["instances_per_s"]:
        column["offered /s"] = f"{of['offered']['instances_per_s']:,.0f} ({_mb(of['offered'])})"
        column["behind its schedule, worst s"] = f"{of['sender']['late_s_max']:.2f}"
    column["committed meanwhile /s"] = f"{of['committed_in_window_per_s']:,.0f}"
    if of["committed"]:
        column["until all was committed /s"] = f"{of['committed']['instances_per_s']:,.0f} ({_mb(of['committed'])})"
        shares = of["share_of_stress"]
        column["of the stress profile"] = f"{shares['mean']:.0%} of its mean, {shares['working_hours']:.0%} by day"
    waiting = of["waiting"]
    column["waiting, most / at end / of it in spools"] = (
        f"{waiting['max']:,} / {waiting['at_end_of_window']:,} / {waiting['spooled_at_end_of_window']:,}"
    )
    column["drained after s"] = "not in time" if waiting["drain_s"] is None else f"{waiting['drain_s']:.1f}"
    for lane, latency in of["latency_s"].items():
        for what, digits in (("acknowledge", 3), ("readable", 2)):
            column[f"{lane}: {what} s, p50 / p95 / p99"] = _percentiles_text(latency[what], digits)
        if latency["unreadable"]:
            column[f"{lane}: looked for and never readable"] = str(latency["unreadable"])
    for role, cost in of["roles"].items():
        column[f"{role}: CPU ms, written / received, MiB"] = (
            f"{cost['cpu_ms_per_instance']:.2f}, {cost['written_per_byte']:.2f}, {cost['peak_mib']:.0f}"
        )
    if together := of["all_roles"]:
        column["all roles: CPU ms, written / received, MiB"] = (
            f"{together['cpu_ms_per_instance']:.2f}, {together['written_per_byte']:.2f}, {together['peak_mib']:.0f}"
        )
        column["all roles: share of CPU"] = ", ".join(
            f"{role} {share:.0%}" for role, share in together["cpu_share"].items()
        )
    sender = of["sender"]
    column["sender: CPU ms, MiB"] = f"{sender['cpu_ms_per_instance']:.2f}, {sender['peak_mib']:.0f}"
    column["refused, lost associations"] = f"{sum(sender['refused'].values())}, {sender['associations_lost']}"
    machine = of["machine"]
    total_s = sum(machine[state] for state in ("busy_s", "disk_wait_s", "idle_s", "stolen_s")) or 1.0
    column["machine: busy, of it others / waits for disk"] = (
        f"{machine['busy_s'] / total_s:.0%}, {machine['others_share']:.0%} / {machine['disk_wait_s'] / total_s:.0%}"
    )
    if of["projection"]:
        per = of["projection"]
        column["a core /s"] = f"{per['instances_per_s_and_core']:,.0f} ({per['mb_per_s_and_core']:.0f} MB/s)"
        column["cores for the stress profile"] = (
            f"{per['cores_for_stress_mean']:.1f} mean, {per['cores_for_stress_working_hours']:.1f} by day"
        )
    return column


def _rate(instances: int, size_bytes: float, seconds: float) -> dict[str, float]:
    return {
        "instances_per_s": round(instances / seconds, 1),
        "mb_per_s": round(size_bytes / seconds / MB, 2),
    }


def _mb(rate: Mapping[str, float]) -> str:
    return f"{rate['mb_per_s']:.0f} MB/s"


def _shares(bytes_per_s: float) -> dict[str, float]:
    return {
        "mean": round(bytes_per_s / STRESS.mean_bytes_per_s, 3),
        "working_hours": round(bytes_per_s / STRESS.working_bytes_per_s, 3),
    }


def _at_end(outcome: Outcome, of: Callable[[Sample], int]) -> int:
    """Of the last sample in the window."""
    return next((of(one) for one in reversed(outcome.samples) if one.at_s <= outcome.seconds), 0)


def _cost(outcome: Outcome, role: str) -> dict[str, float]:
    """By what the role has had by the end of the run: the edge everything, the others what came as far."""
    usage, share = outcome.usage[role], _share_had(outcome, role)
    return {
        "cpu_ms_per_instance": round(usage.cpu_s / (outcome.instances * share or 1) * 1e3, 3),
        "written_per_byte": round(usage.written_bytes / (outcome.sent_bytes * share or 1), 3),
        "peak_mib": round(usage.rss_bytes_max / MIB, 1),
    }


def _together(outcome: Outcome, roles: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The sum of all roles, and who has how much of its CPU."""
    if not roles:
        return {}
    total = {name: round(sum(cost[name] for cost in roles.values()), 3) for name in next(iter(roles.values()))}
    cpu_s = sum(usage.cpu_s for usage in outcome.usage.values()) or 1.0
    shares = {role: round(usage.cpu_s / cpu_s, 3) for role, usage in outcome.usage.items()}
    return {**total, "cpu_share": dict(sorted(shares.items(), key=lambda one: -one[1]))}


def _share_had(outcome: Outcome, role: str) -> float:
    """Of what was acknowledged."""
    if role == "edge" or not outcome.instances:
        return 1.0
    if not outcome.samples:
        return 0.0
    last = outcome.samples[-1]
    had = outcome.instances - last.spooled if role in _UNTIL_SHIPPED else last.committed
    return max(0.0, min(1.0, had / outcome.instances))


def _sender(outcome: Outcome) -> dict[str, Any]:
    tally, instances = outcome.tally, max(1, outcome.instances)
    return {
        "cpu_ms_per_instance": round(tally.cpu_s / instances * 1e3, 3),
        "cpu_share_of_machine": round(tally.cpu_s / outcome.seconds / (os.cpu_count() or 1), 3),
        "peak_mib": round(tally.rss_bytes_max / MIB, 1),
        "associations": tally.associations,
        "associations_lost": tally.associations_lost,
        "refused": dict(tally.refused),
        "late_s_max": round(tally.late_s_max, 3),
        "probes": {
            "requests": outcome.found.requests,
            "errors": outcome.found.errors,
            "unreadable": sum(outcome.found.unreadable.values()),
            "cpu_s": round(outcome.found.cpu_s, 2),
        },
        "instance_bytes_mean": round(outcome.sent_bytes / instances),
    }


def _percentiles_text(of: Mapping[str, float], digits: int) -> str:
    if not of:
        return "-"
    return " / ".join(f"{of[name]:.{digits}f}" for name in _PARTS) + f" ({of['count']:.0f})"
