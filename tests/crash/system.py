"""The processes of a running `sansfilm up`."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from tests.cli.test_up import children


def pids_by_role(process: subprocess.Popen[str]) -> dict[str, int]:
    """Process ids of the roles that run now; a role that has just been started may not be told yet."""
    found = {}
    for pid in children(process):
        with suppress(FileNotFoundError, ProcessLookupError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name.startswith("sf-"):
                found[name.removeprefix("sf-").removesuffix("-0")] = pid
    return found
