"""One sending of all files to one system."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archive.layout import JOURNAL
from archive.segment_store import SegmentStore
from benchmarks.ingest import send, wait_found
from benchmarks.replay_mri.devices import CALLED_AE
from benchmarks.small_objects.systems import System
from schemas.message import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """From the first byte sent."""

    system: str
    lane: str
    instances: int
    size_bytes: int
    acknowledged_s: float
    found_s: float
    #: What came into the archive: batches, with the instances and bytes of each, and journal entries.
    segment_instances: Sequence[int]
    segment_bytes: Sequence[int]
    journal_entries: int
    #: PUT requests at the S3 server; None without one.
    puts: int | None


def run(system: System, lane: Lane, files: Sequence[Path], *, associations: int) -> Run:
    """Send, and wait until a reader finds all."""
    os.sync()
    held, found, puts = _objects(system.store), system.found(), _puts(system)
    begin_s = time.perf_counter()
    send(system.port, files, associations, called_ae=CALLED_AE[lane])
    acknowledged_s = time.perf_counter() - begin_s
    wait_found(system.found, found + len(files))
    found_s = time.perf_counter() - begin_s
    requests = _puts(system)
    new = {key: size_bytes for key, size_bytes in _objects(system.store).items() if key not in held}
    segments = sorted(key for key in new if not key.startswith(f"{JOURNAL}/"))
    return Run(
        system=system.name,
        lane=lane.value,
        instances=len(files),
        size_bytes=sum(path.stat().st_size for path in files),
        acknowledged_s=round(acknowledged_s, 3),
        found_s=round(found_s, 3),
        segment_instances=[len(system.store.index(key)) for key in segments],
        segment_bytes=[new[key] for key in segments],
        journal_entries=len(new) - len(segments),
        puts=None if requests is None or puts is None else requests - puts,
    )


def _objects(store: SegmentStore) -> dict[str, int]:
    return {str(key): size_bytes for key, size_bytes in store.sized_keys()}


def _puts(system: System) -> int | None:
    return None if system.puts is None else system.puts()
