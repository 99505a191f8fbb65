"""Does a worker more cost an instance more, and what does a worker that comes or goes cost?

A region runs on this machine: Kafka, PostgreSQL, S3, one edge, a keeper, web; workers of the routine lane are started
by the benchmark. Ten devices offer one rate of MR slices in many small studies, so that their keys spread over the
partitions. With 1, 2 and 4 workers in turn, user and system time of the workers (with all their children) is read from
/proc between two moments while the load runs, and divided by the instances that they committed between them. Workers
are fresh in each leg, idle for some seconds (what waiting costs is told apart), and warm before they are measured.

A batch of the routine lane is closed a quarter of a second after its first message. More workers share the same load,
so batches shrink, and what a batch costs (a PUT, a transaction, the positions) is paid more often. That is in the
figures, with the size of the batches beside them. What several workers cost apart from it is shown by legs in which
they wait longer, so that batches have the size of one worker's; what a batch and an instance cost, by a line through
all legs.

Then, under the same load: two workers in the quiet, a third joins, one drains, one is killed, it comes back. For each,
how long what was acknowledged waited for its commit. In the end every acknowledged UID is looked up in the catalog, and
`sansfilm archive verify` reads everything again. The exit code is 1 if something is missing or doubled.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.replay_mri.report import context
from benchmarks.replay_mri.tally import Acknowledged
from benchmarks.scaling import report
from benchmarks.scaling.account import Account, Filed, balance, filed, spread
from benchmarks.scaling.events import Commit, Event, disturb, windows
from benchmarks.scaling.legs import Leg, Timing, cases, measure, order
from benchmarks.scaling.load import Offer, Sent
from benchmarks.scaling.pool import Pool
from cli.output import err, out
from region.cluster import Cluster, Shape
from runtime.settings import WorkerSettings, load_settings
from schemas.message import Lane

_EPILOG = """examples
  the figures of docs/benchmarks.md (seven minutes):
    python -m benchmarks.scaling --json scaling.json
  a first look (four minutes):
    python -m benchmarks.scaling --rounds 1 --seconds 6 --settle-s 12
  as slices come instead of transcoded, three brokers with three replicas:
    python -m benchmarks.scaling --transcode keep --brokers 3

The brokers' session timeout is 6 s (Kafka's default is 45 s): a killed worker's partitions stand still that long.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print it."""
    options = _options(arguments)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=options.folder))
    try:
        about = {"parameters": {**vars(options), "folder": None}, **context(work)}
        said, account = _run(options, work / "region", about)
    finally:
        shutil.rmtree(work)
    if options.json:
        Path(options.json).write_text(json.dumps(said, indent=1))
    if not account.is_whole:
        sys.exit(1)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    load = parser.add_argument_group("what is sent")
    load.add_argument("--rate", type=float, default=25.0, help="instances a second")
    load.add_argument("--instance-bytes", type=int, default=500_000)
    load.add_argument("--study-instances", type=int, default=5, help="instances of a study: fewer spread better")
    region = parser.add_argument_group("to whom")
    region.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    region.add_argument("--partitions", type=int, default=12)
    region.add_argument("--brokers", type=int, default=1)
    region.add_argument("--transcode", choices=["keep", "htj2k"], default="htj2k")
    how = parser.add_argument_group("how long")
    how.add_argument("--rounds", type=int, default=2, help="each number of workers once a round, up and down in turn")
    how.add_argument("--seconds", type=float, default=12.0, help="the window in which CPU is read")
    how.add_argument("--warm-s", type=float, default=4.0, help="load before the window")
    how.add_argument("--idle-s", type=float, default=3.0, help="no load, before it")
    how.add_argument("--settle-s", type=float, default=15.0, help="from one event to the next; 0: no events")
    parser.add_argument("--folder", default=None, help="where to work; default: the system's temporary folder")
    parser.add_argument("--json", default=None, help="file for the full report")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, folder: Path, about: dict[str, Any]) -> tuple[dict[str, Any], Account]:
    offer = Offer(
        instances_per_s=options.rate,
        instance_bytes=options.instance_bytes,
        study_instances=options.study_instances,
        run=100_000_000 + secrets.randbelow(900_000_000),
    )
    timing = Timing(idle_s=options.idle_s, warm_s=options.warm_s, seconds=options.seconds)
    shape = Shape(
        brokers=options.brokers,
        partitions=options.partitions,
        edges=1,
        workers=(),
        settings={"SANSFILM_TRANSCODE": options.transcode},
    )
    legs, sent, events, studies = list[Leg](), list[Sent](), list[Event](), 0
    with ExitStack() as stack:
        status = stack.enter_context(err().status("starting a region"))
        cluster = stack.enter_context(Cluster(folder, shape))
        pool = Pool(cluster, Lane.ROUTINE)
        stack.callback(pool.stop)
        planned = order(cases(options.workers, load_settings(WorkerSettings).routine_wait_s), options.rounds)
        for number, case in enumerate(planned, 1):
            status.update(f"leg {number} of {len(planned)}: {case.workers} workers, a batch waits {case.wait_s:g} s")
            leg, of_leg = measure(cluster, pool, offer, timing, case, first_study=studies)
            legs.append(leg)
            sent.append(of_leg)
            studies += offer.studies(timing.load_s)
        if options.settle_s:
            status.update("workers come and go")
            events, of_events = disturb(cluster, pool, offer, settle_s=options.settle_s, first_study=studies)
            sent.append(of_events)
        status.update("the account")
        acknowledged = [one for part in sent for one in part.acknowledged]
        rows, counted = filed(cluster, (one.study for one in acknowledged))
        account = balance(
            {one.instance for one in acknowledged},
            Counter(row.sop_instance_uid for row in rows),
            counted=counted,
            unanswered=sum(part.tally.associations_lost for part in sent),
            verified=bool(cluster.ask("archive", "verify")["clean"]),
        )
    seen = windows(events, _commits(sent[-1].acknowledged, rows)) if events else []
    evenness = spread(rows, partitions=options.partitions)
    out().print(report.legs_table(legs), "")
    if seen:
        out().print(report.events_table(seen), "")
    for line in report.verdict_lines(legs, evenness, account):
        out().print(line)
    return report.figures(about, legs, seen, evenness, account), account


def _commits(acknowledged: Sequence[Acknowledged], rows: Sequence[Filed]) -> list[Commit]:
    """Both ends of each wait by the wall clock."""
    wall_s = time.time() - time.monotonic()
    by_uid = {row.sop_instance_uid: row for row in rows}
    return [
        Commit(partition=row.partition, acknowledged_s=one.at_s + wall_s, committed_s=row.committed_s)
        for one in acknowledged
        if (row := by_uid.get(one.instance)) is not None
    ]


if __name__ == "__main__":
    main()
