"""What a run goes by, and what its senders write down: counts, latencies, and what the probes shall look for."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import queue
import threading
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.replay_mri.content import ExamContent
from benchmarks.replay_mri.schedule import Exam
from schemas.message import Lane

if TYPE_CHECKING:
    Counts = ctypes.Array[ctypes.c_longlong]

#: Of each lane, in a process.
LATENCIES_MAX: Final = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every device of a run goes by. Times are of CLOCK_MONOTONIC, `begin_s` of the week."""

    host: str
    #: Of the edges; devices take turns.
    ports: Sequence[int]
    starts_s: float
    seconds: float
    begin_s: float
    speed_up: float
    #: Nine digits of every UID: runs against one archive must not meet.
    run: int
    #: Instances a second and lane, per process, that the probes are told of; 0: none, infinite: every one.
    probes_per_s: float

    @property
    def ends_s(self) -> float:
        return self.starts_s + self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """An instance that the probes shall look for."""

    lane: Lane
    study: str
    series: str
    instance: str
    at_s: float


@dataclass(slots=True, kw_only=True)
class Tally:
    """What devices sent and what they were answered."""

    instances: Counter[str] = field(default_factory=Counter)
    sent_bytes: Counter[str] = field(default_factory=Counter)
    #: From an instance's last byte to its response, by lane.
    latencies_s: dict[str, array[float]] = field(default_factory=lambda: {lane.value: array("f") for lane in Lane})
    #: Statuses other than Success, in hex.
    refused: Counter[str] = field(default_factory=Counter)
    associations: int = 0
    associations_lost: int = 0
    #: How far behind its due time an instance was sent, at worst.
    late_s_max: float = 0.0
    cpu_s: float = 0.0
    rss_bytes_max: int = 0

    def add(self, other: Tally) -> None:
        self.instances += other.instances
        self.sent_bytes += other.sent_bytes
        self.refused += other.refused
        for lane, latencies in other.latencies_s.items():
            self.latencies_s[lane].extend(latencies)
        self.associations += other.associations
        self.associations_lost += other.associations_lost
        self.late_s_max = max(self.late_s_max, other.late_s_max)
        self.cpu_s += other.cpu_s
        self.rss_bytes_max += other.rss_bytes_max


class Ledger:
    """What a process's associations write down. Thread-safe."""

    def __init__(self, plan: Plan, counts: Counts, number: int, probes: mp.Queue[Acknowledged] | None) -> None:
        self.tally = Tally()
        self._plan, self._counts, self._number, self._probes = plan, counts, number, probes
        self._lock = threading.Lock()
        self._next_probe_s = dict.fromkeys(Lane, 0.0)

    def acknowledged(self, exam: Exam, content: ExamContent, index: int, size_bytes: int, latency_s: float) -> None:
        lane = exam.lane
        with self._lock:
            now_s = time.monotonic()
            self.tally.instances[lane.value] += 1
            self.tally.sent_bytes[lane.value] += size_bytes
            latencies = self.tally.latencies_s[lane.value]
            if len(latencies) < LATENCIES_MAX:
                latencies.append(latency_s)
            self._counts[2 * self._number] += 1
            self._counts[2 * self._number + 1] += size_bytes
            is_probe = self._plan.probes_per_s > 0 and now_s >= self._next_probe_s[lane]
            if is_probe:
                self._next_probe_s[lane] = now_s + 1 / self._plan.probes_per_s
        if is_probe and self._probes is not None:
            names = content.names
            one = Acknowledged(
                lane=lane,
                study=names.study,
                series=names.series(index),
                instance=names.instance(index),
                at_s=now_s,
            )
            with suppress(queue.Full):
                self._probes.put_nowait(one)

    def refused(self, status: int) -> None:
        with self._lock:
            self.tally.refused[f"{status:04X}"] += 1

    def opened(self) -> None:
        with self._lock:
            self.tally.associations += 1

    def lost(self) -> None:
        with self._lock:
            self.tally.associations_lost += 1

    def late(self, late_s: float) -> None:
        with self._lock:
            self.tally.late_s_max = max(self.tally.late_s_max, late_s)
