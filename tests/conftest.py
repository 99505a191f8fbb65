"""What holds for the whole suite."""

from __future__ import annotations

import signal

from tests.region.s3 import seaweed as seaweed  # a fixture

# Under nohup SIGHUP is ignored, children inherit that, and a supervisor rightly keeps to it; the tests send it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
