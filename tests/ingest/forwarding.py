"""A forwarder as a process of its own, to be killed: ships a folder's spool until it is empty."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    from tests.ingest.test_forwarder import TIMEOUT_S, Edge

    stop = threading.Event()
    stop.set()
    with Edge(Path(sys.argv[1])).forwarder() as (forwarder, _):
        sys.exit(forwarder.run(stop, TIMEOUT_S))
