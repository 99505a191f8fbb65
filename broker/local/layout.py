"""Where the local log keeps what: one folder a lane, one stream of files a writer.

::

    log/<lane>/<writer>-<sequence>.tar          a file of the stream: a segment, appended by one process
    log/<lane>/<writer>-<sequence>.mark         how far that file is durable
    log/<lane>/<writer>-<sequence>.<offset>.torn  a piece that did not verify, for an operator
    log/<lane>/positions-<group>                what a group of consumers has done
    log/<lane>/positions-<group>.lock           held by the one consumer of that group
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.message import Lane

#: The groups that read a log: the worker of the embedded form, and the forwarder of an edge that spools.
WORKERS: Final = "workers"
FORWARDER: Final = "forwarder"
DATA_SUFFIX: Final = ".tar"
MARK_SUFFIX: Final = ".mark"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FileName:
    """The name of one file of a stream, without suffix. Orders by writer, then in the order of writing."""

    writer: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.writer}-{self.sequence:06d}"

    @classmethod
    def parse(cls, stem: str) -> FileName | None:
        """The name that `str` gave; None for any other file."""
        writer, _, sequence = stem.rpartition("-")
        if not writer or not sequence.isdecimal():
            return None
        return cls(writer=writer, sequence=int(sequence))


def is_name(name: str) -> bool:
    """Whether a writer or a group may be called so: letters, digits, ``_`` and ``-``, 100 at most."""
    return _NAME.fullmatch(name) is not None


def lane_folder(log_dir: Path, lane: Lane) -> Path:
    """The folder of a lane."""
    return log_dir / lane.value


def stream_of(lane: Lane, name: FileName) -> str:
    """What `Position.stream` says."""
    return f"{lane.value}/{name}"
