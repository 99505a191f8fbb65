"""A running process' clock jumps where a test says so, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runtime.clock import FILE_VARIABLE

ASK = """
import sys
from runtime.clock import SystemClock, rfc3339
for _ in sys.stdin:
    print(rfc3339(SystemClock().now()), SystemClock().new_id(), flush=True)
"""


def test_a_file_moves_time_and_ids(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    environment = {**os.environ, FILE_VARIABLE: str(file)}
    asked = [sys.executable, "-c", ASK]
    with subprocess.Popen(asked, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for text, ahead in (("", 0), ("86400", 86400), ("-3600.5", -3600.5), ("half", 0)):
            file.write_text(text)
            process.stdin.write("\n")
            process.stdin.flush()
            moment, new_id = process.stdout.readline().split()
            expected = datetime.now(UTC) + timedelta(seconds=ahead)
            assert abs(datetime.fromisoformat(moment) - expected) < timedelta(seconds=60)
            of_id = datetime.fromtimestamp(int(new_id.replace("-", "")[:12], 16) / 1000, UTC)
            assert abs(of_id - expected) < timedelta(seconds=60)
        process.stdin.close()
