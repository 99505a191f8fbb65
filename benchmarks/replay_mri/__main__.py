"""Replay a week of a region against sansfilm and report what came of it.

A profile (stress: 16,500 MR exams of 4 GB a week from 55 devices, 109 MB/s in the mean and 306 MB/s in a 60-hour week;
department: two million mixed exams a year) becomes a schedule, always the same for the same seed. Each device is a
sender with one or two associations, one exam after the other. Meanwhile probes ask QIDO-RS and WADO-RS when what was
acknowledged can be read, and CPU, memory and writes of each role are read from /proc.

Paced, the senders follow the schedule and the question is whether the system follows: look at lag and latencies. With
--saturate they go as fast as they are answered and the question is how much it takes: look at the rates and their share
of the stress profile. Sender and system share this machine: the sender's own CPU and ceiling are printed beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.replay_mri.devices import LANE_RULES, Device, devices_of
from benchmarks.replay_mri.gauges import Sample
from benchmarks.replay_mri.picture import draw
from benchmarks.replay_mri.profile import HOUR_S, MB, PROFILES
from benchmarks.replay_mri.replay import Ceiling, Outcome, Pace, ceiling, replay, warm_up
from benchmarks.replay_mri.report import context, figures, markdown, side_by_side
from benchmarks.replay_mri.schedule import week
from benchmarks.replay_mri.targets import WORKERS, Target, cluster, embedded, running, workers_of
from benchmarks.replay_mri.urgent import emergency_scanners, migration, verdict
from cli.output import err, out, size_text
from region.cluster import Shape
from runtime.errors import Misconfigured

_EPILOG = f"""examples
  how much does this machine take, as it comes and transcoded, inline and as claim checks?
    python -m benchmarks.replay_mri --saturate --seconds 120 --transcode keep htj2k --inline-max-bytes 1048576 65536
  a tenth of the region, the two hours from Monday 10 h in 12 minutes:
    python -m benchmarks.replay_mri --scale 0.1 --speed-up 10 --hour 10 --seconds 720
  does an emergency wait for a migration, at full speed and at 20 MB/s?
    python -m benchmarks.replay_mri --urgent-under-load --seconds 60 --bulk-mb-per-s 0 20
  a region of three brokers, PostgreSQL and S3 on this machine: what do replicas and claim checks cost?
    python -m benchmarks.replay_mri --target cluster --saturate --seconds 15 --replication 1 3 \\
        --inline-max-bytes 1048576 65536
  a system that runs already (its edges must have SANSFILM_LANE_RULES={LANE_RULES}):
    python -m benchmarks.replay_mri --target edge.example:11112 --web http://web.example:8080 \\
        --metrics http://edge.example:8080/metrics http://worker.example:8080/metrics --pid worker=4711 broker=4712
"""
_OWN: Final = ("embedded", "cluster")
#: Options that say where something is written, not what is measured.
_FILES: Final = ("folder", "json", "markdown", "picture")
_LONG_S = 30.0
#: Of a region: its brokers compile themselves while they warm up.
_WARM_UP_S = 5.0
Start = Callable[[], AbstractContextManager[Target]]
#: Told of all runs so far, and of what else the report says, after each run.
Keep = Callable[[Mapping[str, Outcome], Mapping[str, object]], None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print it."""
    options = _options(arguments)
    with ended_in_order(), tempfile.TemporaryDirectory(prefix="replay-", dir=options.folder) as folder:
        work = Path(folder)
        about = {"parameters": _parameters(options), **context(work)}
        keep = partial(_keep, options, about)
        if options.urgent_under_load:
            _urgent(options, work, keep)
        else:
            _replayed(options, work, keep)


def _keep(
    options: argparse.Namespace, about: Mapping[str, object], runs: Mapping[str, Outcome], more: Mapping[str, object]
) -> None:
    """Write the files that were asked for; after each run, so that a later one that fails takes none with it."""
    if options.json:
        report = {"context": about, **more, "runs": {name: figures(run) for name, run in runs.items()}}
        Path(options.json).write_text(json.dumps(report, indent=1))
    if options.markdown:
        Path(options.markdown).write_text(markdown(runs))
    if options.picture:
        Path(options.picture).write_text(draw(runs))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay_mri",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    load = parser.add_argument_group("what is sent")
    load.add_argument("--profile", choices=PROFILES, default="stress")
    load.add_argument("--exam-bytes", type=float, help="mean bytes of an exam; default: the profile's own")
    load.add_argument("--scale", type=float, default=1.0, help="share of the region's exams and devices")
    load.add_argument("--speed-up", type=float, default=1.0, help="how many times faster the week goes by")
    load.add_argument("--hour", type=float, default=10.0, help="where the window begins; 0 is Monday 0 h")
    load.add_argument("--seconds", type=float, default=60.0, help="how long is sent, on the clock")
    load.add_argument("--saturate", action="store_true", help="as fast as it is answered, whatever the schedule says")
    load.add_argument("--seed", type=int, default=1)
    load.add_argument("--sender-processes", type=int, default=2)
    to = parser.add_argument_group("to whom")
    to.add_argument(
        "--target",
        default="embedded",
        help="embedded: sansfilm up in a folder of its own; cluster: a region of its own; or HOST:PORT",
    )
    to.add_argument("--transcode", nargs="+", choices=["keep", "htj2k"], default=["htj2k"], help="in turn")
    to.add_argument("--inline-max-bytes", nargs="+", type=int, default=[None], help="in turn; above: claim check")
    to.add_argument("--brokers", type=_count, default=3, help="cluster: Kafka brokers")
    to.add_argument(
        "--replication", nargs="+", type=_count, default=[None], help="cluster, in turn: replicas; default: 3 if it can"
    )
    to.add_argument("--edges", type=_count, default=2, help="cluster: edges, among which devices take turns")
    to.add_argument(
        "--ack-mode", choices=["spool", "kafka"], default="spool", help="cluster: who answers for durability"
    )
    to.add_argument(
        "--workers", nargs="+", default=WORKERS, metavar="LANE=COUNT[@NICENESS]", help=f"cluster: {' '.join(WORKERS)}"
    )
    to.add_argument("--warm-up-s", type=float, help="sent before and not counted; default: 5 for a cluster, else 0")
    to.add_argument("--web", default="", help="root of a running system's readers")
    to.add_argument(
        "--metrics",
        nargs="*",
        default=[],
        help="its /metrics pages, or sockets of processes in run/; default: the page of --web",
    )
    to.add_argument("--pid", nargs="*", default=[], help="ROLE=PID of its processes on this machine")
    ask = parser.add_argument_group("what is asked")
    ask.add_argument("--probes-per-s", type=float, default=2.0, help="instances looked for, a second and lane")
    ask.add_argument("--drain-s", type=float, default=600.0, help="longest wait until everything is committed")
    ask.add_argument(
        "--ceiling-s", type=float, default=5.0, help="how long the sender's own ceiling is measured; 0: not"
    )
    ask.add_argument("--urgent-under-load", action="store_true", help="the urgent lane alone, then beside bulk")
    ask.add_argument("--urgent-per-s", type=float, default=5.0, help="instances of the urgent lane a second")
    ask.add_argument("--bulk-devices", type=int, default=8)
    ask.add_argument(
        "--bulk-mb-per-s",
        nargs="+",
        type=float,
        default=[0.0],
        help="what bulk's senders keep to; 0: no limit",
    )
    ask.add_argument(
        "--bulk-quota-mb-per-s", nargs="*", type=float, default=[], help="cluster: Kafka's quota on bulk, in turn"
    )
    parser.add_argument("--folder", default=None, help="where to work; default: the system's temporary folder")
    parser.add_argument("--json", default=None, help="file for the full report")
    parser.add_argument("--markdown", default=None, help="file for the table as a page has it")
    parser.add_argument("--picture", default=None, help="file for rate and lag over time, as SVG")
    options = parser.parse_args(arguments)
    if options.target not in _OWN and not options.web:
        parser.error("--target needs --web: where the readers of that system answer")
    if options.bulk_quota_mb_per_s and options.target != "cluster":
        parser.error("--bulk-quota-mb-per-s is Kafka's: it needs --target cluster")
    if max(replicas or 1 for replicas in options.replication) > options.brokers:
        parser.error("--replication: there are not that many --brokers")
    try:
        options.workers = workers_of(options.workers)
    except Misconfigured as error:
        parser.error(f"--workers: {error}")
    if options.warm_up_s is None:
        options.warm_up_s = _WARM_UP_S if options.target == "cluster" else 0.0
    return options


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _parameters(options: argparse.Namespace) -> dict[str, object]:
    kept = {name: value for name, value in vars(options).items() if name not in _FILES}
    return {**kept, "workers": [asdict(worker) for worker in options.workers]}


def _pace(options: argparse.Namespace) -> Pace:
    return Pace(
        begin_s=options.hour * HOUR_S,
        seconds=options.seconds,
        speed_up=options.speed_up,
        sender_processes=options.sender_processes,
        probes_per_s=options.probes_per_s,
        drain_timeout_s=options.drain_s,
        interval_s=1.0 if options.seconds >= _LONG_S else 0.2,
    )


def _replayed(options: argparse.Namespace, work: Path, keep: Keep) -> None:
    pace, devices = _pace(options), _devices(options)
    reached = ceiling(devices, pace, seconds=options.ceiling_s) if options.ceiling_s else None
    runs: dict[str, Outcome] = {}
    for name, target in _targets(options, work):
        with _progress(name) as on_sample, target() as running_target:
            if options.warm_up_s:
                warm_up(running_target, devices, pace, seconds=options.warm_up_s)
            runs[name] = replay(running_target, devices, pace, on_sample=on_sample)
        keep(runs, {"ceiling": _ceiling(reached)})
    out().print(_heading(options, devices), side_by_side(runs, reached))


def _urgent(options: argparse.Namespace, work: Path, keep: Keep) -> None:
    """Quiet, then loaded at each quota, each against a system of its own."""
    asked = max(options.probes_per_s, 2 * options.urgent_per_s)  # every instance of the urgent lane
    pace, kind = replace(_pace(options), probes_per_s=asked), PROFILES[options.profile].kinds[0]
    scanners = emergency_scanners(
        kind, instances_per_s=options.urgent_per_s, seconds=pace.seconds, begin_s=pace.begin_s
    )
    loads: dict[str, list[Device]] = {"quiet": []}
    bulk_of = partial(migration, kind, devices=options.bulk_devices, begin_s=pace.begin_s)
    for sent in options.bulk_mb_per_s:
        loads[f"bulk at {sent:g} MB/s" if sent else "bulk saturating"] = bulk_of(mb_per_s=sent or None)
    quotas = {f"bulk with a quota of {quota:g} MB/s": quota for quota in options.bulk_quota_mb_per_s}
    loads |= {name: bulk_of(mb_per_s=None) for name in quotas}
    last = next(reversed(loads))
    runs: dict[str, Outcome] = {}
    verdicts: dict[str, object] = {}
    for system, target in _targets(options, work):
        mine: dict[str, Outcome] = {}
        for load, bulk in loads.items():
            with _progress(f"{system}, {load}") as on_sample, target() as running_target:
                if load in quotas and running_target.hold_bulk_down:
                    running_target.hold_bulk_down(int(quotas[load] * MB))
                if options.warm_up_s:  # by the same load before each, or the quiet one would be the colder one
                    warm_up(running_target, [*scanners, *loads[last]], pace, seconds=options.warm_up_s)
                mine[load] = replay(running_target, [*scanners, *bulk], pace, on_sample=on_sample)
            verdicts[system] = verdict(mine["quiet"], [run for one, run in mine.items() if one != "quiet"])
            runs[f"{system}, {load}"] = mine[load]
            keep(runs, {"urgent": verdicts})
    out().print(side_by_side(runs, None))
    out().print_json(json.dumps(verdicts))


def _devices(options: argparse.Namespace) -> list[Device]:
    profile = PROFILES[options.profile]
    if options.exam_bytes:
        profile = profile.sized(options.exam_bytes)
    return devices_of(
        week(profile, scale=options.scale, seed=options.seed),
        begin_s=options.hour * HOUR_S,
        seconds=options.seconds * options.speed_up,
        paced=not options.saturate,
        bulk_bytes_per_s=options.bulk_mb_per_s[0] * MB or None,
    )


def _targets(options: argparse.Namespace, work: Path) -> Iterator[tuple[str, Start]]:
    """Each system to run against: its name, and what starts it, always anew."""
    if options.target not in _OWN:
        target = running(options.target, web=options.web, pages=options.metrics, pids=options.pid)
        yield target.name, lambda: nullcontext(target)
        return
    for transcode, inline_max_bytes in itertools.product(options.transcode, options.inline_max_bytes):
        name = transcode if inline_max_bytes is None else f"{transcode} inline {inline_max_bytes}"
        instances = {"transcode": transcode, "inline_max_bytes": inline_max_bytes}
        if options.target == "embedded":
            yield name, partial(_anew, work, partial(embedded, **instances))
            continue
        for replication in options.replication:
            shape = _shape(options, replication)
            yield (
                f"{name} RF {replication or min(options.brokers, 3)}",
                partial(_anew, work, partial(cluster, shape=shape, **instances)),
            )


def _shape(options: argparse.Namespace, replication: int | None) -> Shape:
    return Shape(
        brokers=options.brokers,
        replication=replication,
        edges=options.edges,
        workers=options.workers,
        ack_mode=options.ack_mode,
    )


@contextmanager
def _anew(work: Path, start: Callable[[Path], AbstractContextManager[Target]]) -> Iterator[Target]:
    """A system in a folder of its own, which goes with it."""
    with (
        tempfile.TemporaryDirectory(prefix="system-", dir=work, ignore_cleanup_errors=True) as folder,
        start(Path(folder) / "data") as target,
    ):
        yield target


def _heading(options: argparse.Namespace, devices: Sequence[Device]) -> str:
    profile = PROFILES[options.profile]
    pace = "as fast as answered" if options.saturate else f"{options.speed_up:g} times as fast"
    return (
        f"{options.profile} profile, {options.scale:g} of its {profile.exams_week:,} exams a week "
        f"({size_text(options.exam_bytes or profile.exam_bytes)} each), {len(devices)} devices with "
        f"{sum(device.associations for device in devices)} associations, {options.seconds:g} s {pace}\n"
    )


def _ceiling(reached: Ceiling | None) -> dict[str, float] | None:
    return asdict(reached) if reached else None


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: what was started is stopped, and folders go."""
    own_pid = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != own_pid:  # a sender or probe that inherited this
            os._exit(128 + number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, Sample], None]]:
    """A line on a terminal's standard error that says how it goes."""
    console: Console = err()
    with console.status(f"{name}: starting") as status:

        def show(_: str, sample: Sample) -> None:
            status.update(
                f"{name}: {sample.at_s:.0f} s, {sample.acknowledged:,} acknowledged, {sample.committed:,} committed, "
                f"{sample.waiting:,} wait"
            )

        yield show


if __name__ == "__main__":
    main()
