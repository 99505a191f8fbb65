"""How much of the log waits to be committed, seen from outside: for the edge's disk rule and for `status`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from broker.local.layout import DATA_SUFFIX, WORKERS, lane_folder
from broker.local.mark import Mark
from broker.local.positions import Committed, load_positions, positions_path
from schemas.message import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a group has not committed yet. Messages of a writer that died are counted up to its mark."""

    uncommitted_bytes: int
    uncommitted_messages: Mapping[Lane, int]
    files: int


def log_usage(log_dir: Path, group: str = WORKERS) -> Usage:
    """Look at the log without taking part in it: a few small reads for each file, no lock."""
    found = {lane: list(_files(lane_folder(log_dir, lane), group)) for lane in Lane}
    everything = [one for of_lane in found.values() for one in of_lane]
    return Usage(
        uncommitted_bytes=sum(size_bytes for size_bytes, _ in everything),
        uncommitted_messages={lane: sum(messages for _, messages in files) for lane, files in found.items()},
        files=len(everything),
    )


def _files(folder: Path, group: str) -> Iterator[tuple[int, int]]:
    """Bytes and messages not committed, for each file of a lane."""
    positions = load_positions(positions_path(folder, group))
    for path in folder.glob("*" + DATA_SUFFIX):
        with suppress(FileNotFoundError):  # deleted meanwhile: it was committed
            yield _uncommitted(path, positions.get(path.stem, Committed()))


def _uncommitted(path: Path, committed: Committed) -> tuple[int, int]:
    mark = Mark()
    with suppress(FileNotFoundError):
        mark = Mark.decode(path.with_suffix(".mark").read_bytes()) or mark
    end = mark.offset if mark.finished else path.stat().st_size
    if committed.next_offset >= end:
        return 0, 0
    return end - committed.next_offset, max(0, mark.messages - committed.messages)
