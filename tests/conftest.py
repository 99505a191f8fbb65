"""What holds for the whole suite."""

from __future__ import annotations

import signal

from tests.region.guarded import guarded
from tests.region.kafka import kafka
from tests.region.postgres import catalog_url, empty_database, migrated, postgres
from tests.region.s3 import seaweed

__all__ = ["catalog_url", "empty_database", "guarded", "kafka", "migrated", "postgres", "seaweed"]

# Under nohup SIGHUP is ignored, children inherit that, and a supervisor rightly keeps to it; the tests send it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
