"""Flame graphs of edge and worker under load: ``python -m benchmarks.flames docs/images`` writes two SVG pictures."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import receivers
from benchmarks.exam import write_exams
from benchmarks.ingest import send, wait_found
from benchmarks.processes import named

_ROLES = {"edge": "sf-edge-0", "worker": "sf-worker-0"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Record both roles while 8 associations send and the worker commits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--transcode", choices=["keep", "htj2k"], default="htj2k")
    parser.add_argument("--exam", default=None)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        files = write_exams(Path(options.exam or Path(folder) / "exam"), instances=options.instances)
        with receivers.sansfilm(Path(folder) / "data", transcode=options.transcode) as receiver:
            recorders = [
                _record(named(receiver.pid, process), options.folder / f"flames-{role}.svg")
                for role, process in _ROLES.items()
            ]
            send(receiver.port, files, 8)
            assert receiver.found is not None
            wait_found(receiver.found, len(files))
            for recorder in recorders:
                recorder.send_signal(signal.SIGINT)  # py-spy writes its picture when it is interrupted
                recorder.wait(timeout=60)
    for role in _ROLES:
        _title(options.folder / f"flames-{role}.svg", f"sansfilm {role}: 8 associations, {options.transcode}")


def _record(pid: int, picture: Path) -> subprocess.Popen[bytes]:
    py_spy = str(Path(sys.executable).with_name("py-spy"))
    command = [py_spy, "record", "--pid", str(pid), "--rate", "200", "--duration", "120", "--output"]
    return subprocess.Popen([*command, str(picture)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _title(picture: Path, title: str) -> None:
    """py-spy heads its picture with its own command line."""
    heading = re.compile(r'(<text id="title"[^>]*>)[^<]*')
    picture.write_text(heading.sub(rf"\g<1>{title}", picture.read_text()))


if __name__ == "__main__":
    main()
