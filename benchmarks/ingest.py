"""Durable acknowledgement, and sent → found: ``python -m benchmarks.ingest`` (see --help).

DCMTK's storescu sends the same files to everyone, receivers take turns within each round, each starts in an empty
folder. Prints a line per run, a table of medians with spread and ratios, and everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import ceilings, receivers
from benchmarks.exam import SEED, write_exams
from benchmarks.processes import Usage, usage_of
from benchmarks.receivers import Receiver

FOUND_TIMEOUT_S = 120.0
Start = Callable[[Path], AbstractContextManager[Receiver]]

ACKNOWLEDGE: dict[str, Start] = {
    "sansfilm edge": partial(receivers.sansfilm, edge_only=True),
    "floor": receivers.floor,
    "DCMTK storescp": receivers.dcmtk_storescp,
    "pynetdicom storescp": receivers.pynetdicom_storescp,
    "Orthanc": receivers.orthanc,
}
FOUND: dict[str, Start] = {
    "sansfilm htj2k": partial(receivers.sansfilm, transcode="htj2k"),
    "Orthanc JPEG-LS": partial(receivers.orthanc, jpeg_ls=True),
    "sansfilm keep": partial(receivers.sansfilm, transcode="keep"),
    "Orthanc": receivers.orthanc,
}
#: Which of ours a peer is held against; the ratio printed is the peer's median time over ours.
OURS = {
    "acknowledge": dict.fromkeys(["floor", "DCMTK storescp", "pynetdicom storescp", "Orthanc"], "sansfilm edge"),
    "found": {"Orthanc JPEG-LS": "sansfilm htj2k", "Orthanc": "sansfilm keep"},
}
SUITES = {"acknowledge": ACKNOWLEDGE, "found": FOUND}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One sending of all files to one receiver."""

    suite: str
    receiver: str
    associations: int
    acknowledged_s: float
    #: Until a reader found every instance; None where nothing is indexed.
    found_s: float | None
    #: Of the receiver, from the first byte until everything was found (or acknowledged).
    usage: Usage

    @property
    def seconds(self) -> float:
        """What the suite compares."""
        return self.acknowledged_s if self.found_s is None else self.found_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print it."""
    options = _options(arguments)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=options.folder))
    files = write_exams(Path(options.exam or work / "exam"), instances=options.instances)
    context = _context(options, files, work)
    print(json.dumps(context, indent=2), flush=True)
    runs = [run for suite in options.suite for run in _suite(suite, options, files, work)]
    for suite in options.suite:
        print(_table([run for run in runs if run.suite == suite], files))
    report = json.dumps({"context": context, "runs": [asdict(run) for run in runs]}, indent=1)
    if options.json:
        Path(options.json).write_text(report)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--only", nargs="+", help="receivers to run, by name")
    parser.add_argument("--folder", default=None, help="where to work; default: the system's temporary folder")
    parser.add_argument("--exam", default=None, help="folder of the files to send; made if it does not exist")
    parser.add_argument("--json", default=None, help="file for the full report")
    return parser.parse_args(arguments)


def _suite(suite: str, options: argparse.Namespace, files: Sequence[Path], work: Path) -> list[Run]:
    runs = []
    for associations in options.associations:
        for number in range(options.rounds):
            for name, start in SUITES[suite].items():
                if options.only and name not in options.only:
                    continue
                folder = work / f"{suite}-{associations}-{number}-{name.replace(' ', '-')}"
                run = _run(suite, name, start, folder, associations, files)
                runs.append(run)
                print(_line(run), flush=True)
    return runs


def _run(suite: str, name: str, start: Start, folder: Path, associations: int, files: Sequence[Path]) -> Run:
    with start(folder) as receiver:
        before = usage_of(receiver.pid)
        begin_s = time.perf_counter()
        send(receiver.port, files, associations)
        acknowledged_s = time.perf_counter() - begin_s
        found_s = None
        if suite == "found" and receiver.found is not None:
            wait_found(receiver.found, len(files))
            found_s = time.perf_counter() - begin_s
        usage = usage_of(receiver.pid).since(before)
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    os.sync()
    return Run(
        suite=suite,
        receiver=name,
        associations=associations,
        acknowledged_s=round(acknowledged_s, 3),
        found_s=None if found_s is None else round(found_s, 3),
        usage=usage,
    )


def send(port: int, files: Sequence[Path], associations: int, *, called_ae: str = "BENCH") -> None:
    """Send with DCMTK's storescu; every instance must be answered with Success."""
    command = ["storescu", "-q", "-pdu", "131072", "-aec", called_ae, "127.0.0.1", str(port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    senders = [
        subprocess.Popen([*command, *map(str, files[number::associations])], env=environment)
        for number in range(associations)
    ]
    failed = [sender.returncode for sender in senders if sender.wait() != 0]
    if failed:
        raise RuntimeError(f"storescu failed: {failed}")


def wait_found(found: Callable[[], int], expected: int) -> None:
    """Ask as a reader asks until everything is found."""
    deadline_s = time.monotonic() + FOUND_TIMEOUT_S
    while found() < expected:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"found {found()} of {expected} instances")
        time.sleep(0.05)


def _line(run: Run) -> str:
    found = "" if run.found_s is None else f"  found {run.found_s:7.2f} s"
    return (
        f"{run.suite:<12} {run.receiver:<20} {run.associations:>2} assoc.  acknowledged {run.acknowledged_s:7.2f} s"
        f"{found}  cpu {run.usage.cpu_s:6.2f} s  written {run.usage.written_bytes / 2**20:7.0f} MiB"
    )


def _table(runs: Sequence[Run], files: Sequence[Path]) -> str:
    """Medians and spread; behind a peer, how many times our median time it took."""
    size_bytes = sum(path.stat().st_size for path in files)
    lines = [f"{'':<20} assoc.   median s  (min - max)     peer/ours  MiB/s  cpu ms each  written/received"]
    for associations in sorted({run.associations for run in runs}):
        rows = [run for run in runs if run.associations == associations]
        for name in dict.fromkeys(run.receiver for run in rows):
            lines.append(_row(name, rows, len(files), size_bytes))
    lines += ["", f"{'':<20} process            cpu ms each  peak memory MiB"]
    last = max(run.associations for run in runs)
    for name in dict.fromkeys(run.receiver for run in runs):
        mine = [run for run in runs if run.receiver == name and run.associations == last]
        for process in mine[-1].usage.peak_rss_bytes:
            cpu_ms = statistics.median(run.usage.cpu_s_by_name.get(process, 0.0) for run in mine) / len(files) * 1e3
            peak = max(run.usage.peak_rss_bytes.get(process, 0) for run in mine) / 2**20
            lines.append(f"{name:<20} {process:<18} {cpu_ms:11.2f}  {peak:15.0f}")
    return "\n".join(lines)


def _row(name: str, rows: Sequence[Run], instances: int, size_bytes: int) -> str:
    mine = [run for run in rows if run.receiver == name]
    seconds = [run.seconds for run in mine]
    median_s = statistics.median(seconds)
    ours = [run.seconds for run in rows if run.receiver == OURS[mine[0].suite].get(name)]
    ratio = f"{median_s / statistics.median(ours):5.2f}x" if ours else ""
    cpu_ms = statistics.median(run.usage.cpu_s for run in mine) / instances * 1e3
    written = statistics.median(run.usage.written_bytes for run in mine) / size_bytes
    spread = f"({min(seconds):.2f} - {max(seconds):.2f})"
    speed = f"{ratio:>9} {size_bytes / 2**20 / median_s:6.0f}"
    return (
        f"{name:<20} {mine[0].associations:>5}   {median_s:8.2f}  {spread:<15}  {speed}  {cpu_ms:11.2f}  {written:8.2f}"
    )


def _context(options: argparse.Namespace, files: Sequence[Path], work: Path) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    storescu = subprocess.run(["storescu", "--version"], capture_output=True, text=True, check=False)
    return {
        "host": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": sys.version.split()[0],
        },
        "commit": commit.stdout.strip(),
        "sender": storescu.stdout.splitlines()[0],
        "instances": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "seed": SEED,
        "rounds": options.rounds,
        "ceilings": {
            **ceilings.disk_sync(work),
            **ceilings.loopback(),
            "senders_s": {count: _senders_s(count, files, work) for count in options.associations},
        },
    }


def _senders_s(associations: int, files: Sequence[Path], work: Path) -> float:
    """What starting the senders costs, before any of them has sent much: each sends one instance."""
    with receivers.floor(work / f"senders-{associations}") as receiver:
        begin_s = time.perf_counter()
        send(receiver.port, files[:associations], associations)
        return round(time.perf_counter() - begin_s, 3)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
