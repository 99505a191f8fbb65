"""What holds for the whole suite."""

from __future__ import annotations

import signal

from tests.region.kafka import kafka

__all__ = ["kafka"]

# Under nohup SIGHUP is ignored, children inherit that, and a supervisor rightly keeps to it; the tests send it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
