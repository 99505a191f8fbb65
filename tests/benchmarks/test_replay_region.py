"""A region as a target: its options, processes by role, counters and tables; and the smallest one is replayed."""

from __future__ import annotations

import json
import os
import signal
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric

from benchmarks.replay_mri import __main__ as replay_mri
from benchmarks.replay_mri.gauges import Look, MachineUsage, RoleUsage, Sample, look
from benchmarks.replay_mri.probes import Found
from benchmarks.replay_mri.profile import MB
from benchmarks.replay_mri.replay import Outcome
from benchmarks.replay_mri.report import figures, markdown
from benchmarks.replay_mri.tally import Tally
from benchmarks.replay_mri.targets import WORKERS, by_role, workers_of
from benchmarks.replay_mri.urgent import verdict
from region.cluster import WorkerShape
from runtime.errors import Misconfigured
from runtime.health import HealthServer
from schemas.message import Lane


def test_workers_are_of_one_lane_each_and_bulk_waits_for_the_others() -> None:
    assert workers_of(WORKERS) == (
        WorkerShape(lanes=(Lane.URGENT,)),
        WorkerShape(lanes=(Lane.ROUTINE,)),
        WorkerShape(lanes=(Lane.BULK,), niceness=19),
    )
    assert (
        workers_of(["urgent=1", "routine=2@5", "bulk=1"])[1:3] == (WorkerShape(lanes=(Lane.ROUTINE,), niceness=5),) * 2
    )


@pytest.mark.parametrize(
    "texts",
    [["urgent"], ["urgent=x"], ["slow=1"], ["urgent=1@20"], ["urgent=1@-1"], ["urgent=1"], ["urgent=0", *WORKERS[1:]]],
    ids=" ".join,
)
def test_workers_that_are_none_are_refused(texts: list[str]) -> None:
    with pytest.raises(Misconfigured):
        workers_of(texts)


@pytest.mark.parametrize(
    "arguments",
    [["--replication", "1", "4"], ["--edges", "0"], ["--workers", "urgent=1"], ["--target", "127.0.0.1:11112"]],
    ids=" ".join,
)
def test_options_that_cannot_be_are_told_before_anything_starts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        replay_mri.main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_processes_are_told_apart_by_the_roles_in_their_names() -> None:
    names = {1: "sansfilm", 2: "sf-edge-0", 3: "sf-edge-1", 4: "sf-forwarder-0", 5: "sf-edge-", 6: "java"}
    assert by_role(names) == {"edge": [2, 3], "forwarder": [4]}


def test_the_counters_of_single_processes_are_summed_from_their_sockets(tmp_path: Path) -> None:
    def serving(role: str, name: str, **labels: str) -> HealthServer:
        registry = CollectorRegistry()
        Metric(name, "", [*labels], registry=registry).labels(**labels).inc(7)
        return HealthServer(tmp_path, role, registry=registry)

    servers = [
        serving("edge", "sansfilm_instances_received_total", lane="routine"),
        serving("forwarder", "sansfilm_forwarded_total", lane="routine"),
        serving("worker", "sansfilm_verdicts_total", verdict="new"),
        serving("keeper", "sansfilm_verdicts_total", verdict="decision"),
    ]
    pages = [str(server.path) for server in servers]
    try:
        assert look(pages) == Look(received=7, committed=7, forwarded=7, lag_by_lane={})
        assert look(pages[:1]) == Look(received=7, committed=0, forwarded=None, lag_by_lane={})
    finally:
        for server in servers:
            server.close()
    with pytest.raises(OSError, match=r"."):
        look(pages)


def _outcome(*, committed: int = 100, spooled: int = 0, unreadable: int = 0) -> Outcome:
    """A hundred urgent instances of 1 MB in ten seconds."""
    tally = Tally(instances=Counter(urgent=100), sent_bytes=Counter(urgent=100 * MB))
    tally.latencies_s["urgent"] = array("f", [0.1] * 100)
    found = Found(unreadable={"urgent": unreadable})
    found.latencies_s["urgent"] = [0.5] * 100
    last = Sample(
        at_s=9.0, acknowledged=100, committed=committed, waiting=100 - committed, spooled=spooled, lag_by_lane={}
    )
    return Outcome(
        tally=tally,
        offered_instances=0,
        offered_bytes=0.0,
        seconds=10.0,
        drain_s=0.0 if committed == 100 else None,
        samples=[last],
        found=found,
        usage={
            "edge": RoleUsage(cpu_s=0.1, written_bytes=100 * MB, rss_bytes_max=0),
            "broker": RoleUsage(cpu_s=0.6, written_bytes=300 * MB, rss_bytes_max=0),
            "s3": RoleUsage(cpu_s=0.3, written_bytes=50 * MB, rss_bytes_max=0),
        },
        machine=MachineUsage(busy_s=1.0, disk_wait_s=0.0, idle_s=1.0, stolen_s=0.0),
        own_cpu_s=0.0,
        starts_s=0.0,
    )


def test_all_roles_together_are_told_with_who_has_how_much_of_the_processor() -> None:
    said = figures(_outcome())
    assert said["roles"]["broker"] == {"cpu_ms_per_instance": 6.0, "written_per_byte": 3.0, "peak_mib": 0.0}
    assert said["all_roles"]["cpu_ms_per_instance"] == pytest.approx(10.0)
    assert said["all_roles"]["written_per_byte"] == pytest.approx(4.5)
    assert list(said["all_roles"]["cpu_share"].items()) == [("broker", 0.6), ("s3", 0.3), ("edge", 0.1)]
    assert said["projection"]["instances_per_s_and_core"] == 100


def test_what_did_not_come_as_far_as_a_role_is_not_counted_as_its() -> None:
    said = figures(_outcome(committed=25, spooled=50))
    assert said["roles"]["edge"]["cpu_ms_per_instance"] == 1.0
    assert said["roles"]["broker"]["written_per_byte"] == 6.0
    assert said["roles"]["s3"]["written_per_byte"] == 2.0
    assert said["waiting"]["spooled_at_end_of_window"] == 50
    assert not said["projection"]


def test_a_table_for_a_page_has_a_column_a_run_and_a_row_a_figure() -> None:
    head, rule, *rows = markdown({"RF 1": _outcome(), "RF 3": _outcome(unreadable=3)}).splitlines()
    assert head == "|  | RF 1 | RF 3 |"
    assert rule == "| --- | --- | --- |"
    assert all(row.count("|") == 4 for row in rows)
    assert "| broker: CPU ms, written / received, MiB | 6.00, 3.00, 0 | 6.00, 3.00, 0 |" in rows
    assert "| urgent: looked for and never readable |  | 3 |" in rows


def test_the_urgent_lane_does_not_meet_its_objective_by_what_was_never_seen() -> None:
    said = verdict(_outcome(), [_outcome(), _outcome(unreadable=1)])
    assert said["met"] == [True, False]
    assert said["ratio_p99"] == [1.0, 1.0]


def test_sigterm_ends_a_run_in_order_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped: list[str] = []

    @contextmanager
    def system() -> Iterator[None]:
        try:
            yield
        finally:
            stopped.append("system")

    with pytest.raises(SystemExit) as ended, replay_mri.ended_in_order(), system():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert stopped == ["system"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.timeout(300)
def test_the_smallest_region_is_replayed(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    sizes = ["--scale", "0.02", "--seconds", "1", "--ceiling-s", "0", "--warm-up-s", "0.2", "--saturate"]
    region = ["--target", "cluster", "--brokers", "1", "--edges", "1", "--transcode", "keep"]
    replay_mri.main([*sizes, *region, "--folder", str(tmp_path), "--json", str(report)])
    ((name, run),) = json.loads(report.read_text())["runs"].items()
    assert name == "keep RF 1"
    assert run["instances"] > 0
    assert run["waiting"]["drain_s"] is not None
    assert run["samples"][-1]["committed"] == run["instances"] == run["samples"][-1]["acknowledged"]
    assert run["sender"]["probes"]["unreadable"] == 0
    assert list(run["roles"]) == ["edge", "forwarder", "broker", "worker", "s3", "postgres", "keeper", "web"]
    for role in ("edge", "broker", "s3"):
        assert run["roles"][role]["written_per_byte"] > 0.9
    assert all(cost["peak_mib"] > 0 for cost in run["roles"].values())
    assert list(tmp_path.iterdir()) == [report]
