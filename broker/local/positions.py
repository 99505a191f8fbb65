"""What a group of consumers has done: one small state file a lane, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.logs import get_logger
from segments.disk import Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """How far one file of the log is done: the next offset to read, and messages before it."""

    next_offset: int = 0
    messages: int = 0


Positions = Mapping[str, Committed]
"""By file name without suffix."""


def positions_path(folder: Path, group: str) -> Path:
    """The state file of a group in a lane's folder."""
    return folder / f"positions-{group}.json"


def load_positions(path: Path) -> Positions:
    """The positions last saved; none if there are none.

    An unreadable file (it is replaced atomically, so only a broken disk makes one) also counts as none: everything that
    is still in the log is delivered again, which the archive answers with Same.
    """
    try:
        streams = json.loads(path.read_bytes())["streams"]
        return {name: Committed(next_offset=int(at), messages=int(count)) for name, (at, count) in streams.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        get_logger().error("log_positions_unreadable", file=path.name)
        return {}


def save_positions(disk: Disk, path: Path, positions: Positions) -> None:
    """Replace the state file; durable on return.

    Raises:
        OutOfSpace, Retryable: the old positions stand.
    """
    streams = {name: (done.next_offset, done.messages) for name, done in sorted(positions.items())}
    disk.replace(path, json.dumps({"version": 1, "streams": streams}).encode())


def other_groups(folder: Path, group: str) -> Iterator[Positions]:
    """The positions of every other group that reads this lane."""
    for path in folder.glob("positions-*.json"):
        if path != positions_path(folder, group):
            yield load_positions(path)
