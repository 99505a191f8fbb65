"""Processes that send devices' exams, and what they were answered.

One process has several devices, each association a thread: `sendmsg` and `recv` release the interpreter's lock. A
process counts into memory it shares with the run that started it, and gives its `Tally` when it is done.
"""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import queue
import resource
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final

from benchmarks.replay_mri.content import ExamContent, pictures
from benchmarks.replay_mri.devices import CALLED_AE, Device
from benchmarks.replay_mri.schedule import Exam, due_within
from cli.association import Association, Context, Peer, PeerLost
from runtime.lifecycle import die_with_parent, name_process
from schemas.message import Lane

if TYPE_CHECKING:
    Counts = ctypes.Array[ctypes.c_longlong]

LATENCIES_MAX: Final = 500_000
_REFUSED_PAUSE_S: Final = 0.25
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every device of a run goes by. Times are of CLOCK_MONOTONIC, `begin_s` of the week."""

    host: str
    port: int
    starts_s: float
    seconds: float
    begin_s: float
    speed_up: float
    #: Nine digits of every UID: runs against one archive must not meet.
    run: int
    #: Instances a second and lane, per process, that the probes are told of; 0: none.
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


class Senders:
    """The processes of one run; started on construction, all waiting for the plan's start."""

    def __init__(
        self,
        devices: Sequence[Device],
        plan: Plan,
        *,
        processes: int,
        probes: mp.Queue[Acknowledged] | None = None,
    ) -> None:
        pictures()
        fork = mp.get_context("fork")
        #: Instances and bytes acknowledged so far, two numbers a process.
        self._counts: Counts = fork.RawArray("q", 2 * processes)
        self._results: list[Connection] = []
        self._processes = []
        for number in range(processes):
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(
                target=_run_process,
                args=(devices[number::processes], plan, self._counts, number, probes, theirs, os.getpid()),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._results.append(ours)
            self._processes.append(process)

    def so_far(self) -> tuple[int, int]:
        """Instances and bytes acknowledged."""
        counts = self._counts[:]
        return sum(counts[::2]), sum(counts[1::2])

    def result(self, *, timeout_s: float) -> Tally:
        """Wait until all are done.

        Raises:
            RuntimeError: a process failed, or is not done in time.
        """
        ends_s = time.monotonic() + timeout_s
        total = Tally()
        for result in self._results:
            try:
                if not result.poll(max(0.0, ends_s - time.monotonic())):
                    raise RuntimeError("a sender is not done in time")
                total.add(result.recv())
            except EOFError:
                raise RuntimeError("a sender failed; its trace is above") from None
        return total

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.terminate()
            process.join()


def _run_process(
    devices: Sequence[Device],
    plan: Plan,
    counts: Counts,
    number: int,
    probes: mp.Queue[Acknowledged] | None,
    result: Connection,
    parent_pid: int,
) -> None:
    die_with_parent(parent_pid)
    name_process(f"replay-send-{number}")
    ledger = _Ledger(plan, counts, number, probes)
    threads = [
        threading.Thread(target=_Line(device, share, plan, ledger).run, daemon=True)
        for device in devices
        for share in range(device.associations)
    ]
    begin_s = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.tally.cpu_s = time.process_time() - begin_s
    ledger.tally.rss_bytes_max = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if probes is not None:
        probes.close()
    result.send(ledger.tally)


class _Ledger:
    """What a process's associations write down. Thread-safe."""

    def __init__(self, plan: Plan, counts: Counts, number: int, probes: mp.Queue[Acknowledged] | None) -> None:
        self.tally = Tally()
        self._plan, self._counts, self._number, self._probes = plan, counts, number, probes
        self._lock = threading.Lock()
        self._next_probe_s = dict.fromkeys(Lane, 0.0)

    def acknowledged(self, exam: Exam, content: ExamContent, index: int, size_bytes: int, latency_s: float) -> None:
        now_s = time.monotonic()
        lane = exam.lane
        with self._lock:
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


class _TimedAssociation(Association):
    """Knows how long the last response took, from the last byte of its request."""

    latency_s = 0.0

    def _status(self) -> int:
        sent_s = time.perf_counter()
        try:
            return super()._status()
        finally:
            self.latency_s = time.perf_counter() - sent_s


class _Line:
    """One of a device's associations: its share of each exam, exam after exam, until the window ends."""

    def __init__(self, device: Device, share: int, plan: Plan, ledger: _Ledger) -> None:
        self._device, self._share, self._plan, self._ledger = device, share, plan, ledger
        self._allowed_s = plan.starts_s

    def run(self) -> None:
        self._wait_until(self._plan.starts_s)
        for exam in self._device.exams:
            if time.monotonic() >= self._plan.ends_s:
                return
            self._send(exam)

    def _send(self, exam: Exam) -> None:
        """An exam over one association, as scanners do; over another one should it be lost."""
        indexes = self._indexes(exam)
        if not indexes:
            return
        content = ExamContent(exam, run=self._plan.run)
        context = (exam.kind.sop_class_uid, content.transfer_syntax)
        waiting: Iterator[int] = iter(indexes)
        index = next(waiting, None)
        while index is not None and time.monotonic() < self._plan.ends_s:
            association = self._open(exam, context)
            try:
                while association is not None and index is not None and self._is_due(exam, index):
                    if self._store(association, exam, content, context, index):
                        index = next(waiting, None)
            except PeerLost:
                self._ledger.lost()
                self._pause()
            else:
                if association is not None:
                    association.release()
                    return

    def _indexes(self, exam: Exam) -> range:
        plan = self._plan
        chosen = range(exam.instances)
        if self._device.paced:
            chosen = due_within(exam, begin_s=plan.begin_s, seconds=plan.seconds * plan.speed_up)
        return chosen[self._share :: self._device.associations]

    def _open(self, exam: Exam, context: Context) -> _TimedAssociation | None:
        peer = Peer(
            called_ae=CALLED_AE[exam.lane],
            host=self._plan.host,
            port=self._plan.port,
            calling_ae=self._device.ae_title,
        )
        try:
            association = _TimedAssociation(peer, [context], timeout_s=_TIMEOUT_S)
        except PeerLost:
            self._ledger.lost()
            self._pause()
            return None
        self._ledger.opened()
        return association

    def _store(
        self, association: _TimedAssociation, exam: Exam, content: ExamContent, context: Context, index: int
    ) -> bool:
        """Send one instance; whether it was taken."""
        uid, dataset = content.instance(index)
        self._keep_quota(len(dataset))
        status = association.store(context, uid, dataset)
        if status != 0:
            self._ledger.refused(status)
            self._pause()
            return False
        self._ledger.acknowledged(exam, content, index, len(dataset), association.latency_s)
        return True

    def _is_due(self, exam: Exam, index: int) -> bool:
        """Wait until an instance is due; whether that is within the window."""
        plan = self._plan
        if self._device.paced:
            due_s = plan.starts_s + (exam.due_s(index) - plan.begin_s) / plan.speed_up
            if due_s >= plan.ends_s:
                return False
            self._wait_until(due_s)
            self._ledger.late(time.monotonic() - due_s)
        return time.monotonic() < plan.ends_s

    def _keep_quota(self, size_bytes: int) -> None:
        if self._device.quota_bytes_per_s is not None:
            self._wait_until(min(self._allowed_s, self._plan.ends_s))
            share = self._device.quota_bytes_per_s / self._device.associations
            self._allowed_s = max(self._allowed_s, time.monotonic() - 1.0) + size_bytes / share

    def _wait_until(self, moment_s: float) -> None:
        if (wait_s := moment_s - time.monotonic()) > 0:
            time.sleep(wait_s)

    def _pause(self) -> None:
        self._wait_until(min(time.monotonic() + _REFUSED_PAUSE_S, self._plan.ends_s))


def latencies(tally: Tally) -> Mapping[str, Sequence[float]]:
    """Acknowledgement latencies by lane, of lanes that have any."""
    return {lane: values for lane, values in tally.latencies_s.items() if values}
