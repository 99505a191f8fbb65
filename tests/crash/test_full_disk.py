"""A file system that is really full: what does not fit is refused, and everything acknowledged is committed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_up import ROOT, needs_mounts

SIZE = "48m"


def on_small_disk(folder: Path, *what: str) -> Any:
    """Run a program of `tests.crash.full_disk` in a mount namespace of its own; gives what it printed."""
    mount = f'mount -t tmpfs -o size={SIZE} none {folder} && exec "$@"'
    program = [sys.executable, "-W", "error", "-m", "tests.crash.full_disk", str(folder), *what]
    command = ["unshare", "-m", "sh", "-c", mount, "sh", *program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return json.loads(done.stdout)


@needs_mounts
@pytest.mark.parametrize("source", ["mixture", "small", "large"])
def test_filled_by_modalities(tmp_path: Path, source: str) -> None:
    """Nothing is ever freed: the reserve is what the acknowledged instances still need."""
    said = on_small_disk(tmp_path, "fill", source)
    assert said["rounds"][0] > 0
    assert said["rounds"][-1] == 0
    assert said["refusals"].keys() == {"A700"}
    assert (said["missing"], said["twice"]) == ([], [])
    assert said["quarantined"].keys() <= {"missing_uid"}
    assert (said["exit_code"], said["verify"]) == (0, 0)


@needs_mounts
def test_filled_to_the_last_byte_by_somebody_else(tmp_path: Path) -> None:
    """Not even the reserve is left; the worker dies and comes back meanwhile. With the space, it goes on."""
    said = on_small_disk(tmp_path, "last-byte", "mixture")
    assert said["free_bytes"] == 0
    assert said["refusals"].keys() == {"A700"}
    assert (said["missing"], said["twice"]) == ([], [])
    assert said["quarantined"].keys() <= {"missing_uid"}
    assert (said["exit_code"], said["verify"]) == (0, 0)
