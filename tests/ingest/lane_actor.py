"""A receiver's share in the lanes, that a test kills: ``python -m tests.ingest.lane_actor PATH LANE FIRST COUNT``.

Gives the studies from FIRST on the lane LANE unless they have one, and says which they have, a word a line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ingest.lane_store import LaneStore
from schemas.message import Lane


def main() -> None:
    path, lane, first, count = Path(sys.argv[1]), Lane(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    store = LaneStore(path)
    for number in range(first, first + count):
        print(store.decide("default", f"1.2.{number}", lane).value, flush=True)


if __name__ == "__main__":
    main()
