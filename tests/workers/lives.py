"""Actors, one after the other, as a supervisor starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.workers.pool import Pool

ROOT = Path(__file__).parents[2]


def live_until_it_stops(pool: Pool, *uids: str) -> tuple[list[int], list[list[str]]]:
    """Run actors one after the other; gives the exit code of each, and the UIDs that it judged."""
    judged, codes = [], []
    while not codes or (codes[-1] == -signal.SIGKILL and len(codes) < 10):
        command = [sys.executable, "-m", "tests.workers.actor", str(pool.settings.data_dir), *uids]
        done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True, timeout=60)
        judged.append([line for line in done.stdout.splitlines() if line.startswith("1.2.")])
        codes.append(done.returncode)
    return codes, judged
