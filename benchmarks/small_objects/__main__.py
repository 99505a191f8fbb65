"""What an object store costs over a folder when files are small, through the whole pipeline.

1,635 slices of 131 to 524 kB, 356 MB together, are sent by DCMTK's storescu (TCP_NODELAY=1) to a region whose archive
is in S3 (SeaweedFS, over loopback), to the same region with its archive in a folder, and to `sansfilm up`. Each has one
edge and one worker, begins anew in each round, and has taken some instances before; systems take turns, the order turns
with the rounds. The clock runs from the first byte until QIDO-RS finds all of them.

A batch is one PUT. The routine lane closes one a quarter of a second after its first message, at 256 messages or at
64 MiB; the bulk lane waits five seconds instead of a quarter, so its last batch, which nothing fills, waits them out.
PUTs are counted by the S3 server itself, refused ones, the README and journal entries included; segments and journal
entries are listed beside them. The folder syncs what it writes, SeaweedFS writes to the page cache.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.replay_mri.report import context
from benchmarks.small_objects import systems
from benchmarks.small_objects.report import PEER_S, peer_line, puts_least, side_by_side, summary
from benchmarks.small_objects.runs import Run, run
from benchmarks.small_objects.study_set import INSTANCES, write_study_set
from benchmarks.small_objects.systems import System
from cli.output import err, out
from runtime.settings import WorkerSettings, load_settings
from schemas.message import Lane

_EPILOG = """examples
  the figures of docs/benchmarks.md (five minutes):
    python -m benchmarks.small_objects --json small-objects.json
  a first look (a minute and a half):
    python -m benchmarks.small_objects --rounds 1 --instances 300
  stored as they come, two devices at one time:
    python -m benchmarks.small_objects --transcode keep --associations 2
"""
_WARM_UP: Final = 40
Start = Callable[[Path, str], AbstractContextManager[System]]
SYSTEMS: Final[dict[str, Start]] = {
    "s3": systems.on_s3,
    "folder": systems.on_folder,
    "embedded": systems.embedded,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print it."""
    options = _options(arguments)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=options.folder))
    runs: list[Run] = []
    try:
        about = {"parameters": {**vars(options), "folder": None}, "sender": _sender(), **context(work)}
        with err().status("") as status:
            for number in range(options.rounds):
                for name in options.systems[:: 1 if number % 2 == 0 else -1]:
                    status.update(f"round {number + 1} of {options.rounds}: {name}")
                    folder = work / f"{name}-{number}"
                    with SYSTEMS[name](folder / "data", options.transcode) as system:
                        runs += [_run(system, Lane(lane), folder / lane, options) for lane in options.lanes]
                    shutil.rmtree(folder)
    finally:
        shutil.rmtree(work)
    defaults = load_settings(WorkerSettings)
    least = puts_least(runs[0], batch_messages=defaults.batch_max_messages, batch_bytes=defaults.batch_max_bytes)
    out().print(side_by_side(runs), "")
    out().print(f"full batches alone would be {least} PUTs")
    out().print(peer_line())
    if options.json:
        said = {"context": about, "peer_published_s": PEER_S, "puts_least": least, "lanes": summary(runs)}
        Path(options.json).write_text(json.dumps({**said, "runs": [asdict(one) for one in runs]}, indent=1))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_objects",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--instances", type=int, default=INSTANCES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--associations", type=int, default=1)
    parser.add_argument("--lanes", nargs="+", choices=[lane.value for lane in Lane], default=["routine", "bulk"])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--transcode", choices=["keep", "htj2k"], default="htj2k")
    parser.add_argument("--folder", default=None, help="where to work; default: the system's temporary folder")
    parser.add_argument("--json", default=None, help="file for the full report")
    return parser.parse_args(arguments)


def _run(system: System, lane: Lane, folder: Path, options: argparse.Namespace) -> Run:
    """Warm up the lane, then send files of UIDs that nobody has seen."""
    first = write_study_set(folder / "first", instances=_WARM_UP, run=_nine_digits())
    run(system, lane, first, associations=1)
    files = write_study_set(folder / "files", instances=options.instances, run=_nine_digits())
    done = run(system, lane, files, associations=options.associations)
    shutil.rmtree(folder)
    return done


def _nine_digits() -> int:
    return 100_000_000 + secrets.randbelow(900_000_000)


def _sender() -> str:
    told = subprocess.run(["storescu", "--version"], capture_output=True, text=True, check=False)
    return told.stdout.partition("\n")[0].strip()


if __name__ == "__main__":
    main()
