"""What waits in the log, seen from outside: the attributes of messages that a group has not committed yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from broker.local.layout import DATA_SUFFIX, WORKERS, lane_folder
from broker.local.positions import Committed, load_positions, positions_path
from schemas.message import Lane, MessageAttributes
from segments.tar import SegmentDamaged, read_member


def waiting_attributes(log_dir: Path, group: str = WORKERS) -> Iterator[MessageAttributes]:
    """Every message that waits, by lane, file and order in it; headers are read, bodies are not, and no lock is taken.

    What a writer has written and not synced yet is given too; damage ends the reading of a file.
    """
    for lane in Lane:
        for path, committed in _files(lane_folder(log_dir, lane), group):
            yield from _messages(path, committed)


def first_waiting(log_dir: Path, lane: Lane, group: str = WORKERS) -> Iterator[MessageAttributes]:
    """Of each file of a lane the first message that waits: one of them is the oldest of the lane."""
    for path, committed in _files(lane_folder(log_dir, lane), group):
        for attributes in _messages(path, committed):
            yield attributes
            break


def _files(folder: Path, group: str) -> list[tuple[Path, Committed]]:
    positions = load_positions(positions_path(folder, group))
    return [(path, positions.get(path.stem, Committed())) for path in sorted(folder.glob("*" + DATA_SUFFIX))]


def _messages(path: Path, committed: Committed) -> Iterator[MessageAttributes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # deleted meanwhile: it was committed
        return
    try:
        at, end = committed.next_offset, os.fstat(descriptor).st_size
        with suppress(SegmentDamaged):
            while member := read_member(lambda offset, size: os.pread(descriptor, size, offset), at, end):
                at = member.next_offset
                if not member.is_own:
                    with suppress(ValueError):  # no message this version knows
                        yield MessageAttributes.from_headers(member.provenance)
    finally:
        os.close(descriptor)
