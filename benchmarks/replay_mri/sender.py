"""Processes that send devices' exams, and what they were answered.

One process has several devices, each association a thread: `sendmsg` and `recv` release the interpreter's lock. A
process counts into memory it shares with the run that started it, and gives its `Tally` when it is done.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final

from benchmarks.replay_mri.content import ExamContent, pictures
from benchmarks.replay_mri.devices import CALLED_AE, Device
from benchmarks.replay_mri.schedule import Exam, due_within
from benchmarks.replay_mri.tally import Acknowledged, Ledger, Plan, Tally
from cli.association import Association, Context, Peer, PeerLost
from runtime.lifecycle import die_with_parent, name_process

if TYPE_CHECKING:
    from benchmarks.replay_mri.tally import Counts

_REFUSED_PAUSE_S: Final = 0.25
_TIMEOUT_S: Final = 60.0


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
        placed = list(zip(devices, itertools.cycle(plan.ports), strict=False))
        #: Instances and bytes acknowledged so far, two numbers a process.
        self._counts: Counts = fork.RawArray("q", 2 * processes)
        self._results: list[Connection] = []
        self._processes = []
        for number in range(processes):
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(
                target=_run_process,
                args=(placed[number::processes], plan, self._counts, number, probes, theirs, os.getpid()),
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
    placed: Sequence[tuple[Device, int]],
    plan: Plan,
    counts: Counts,
    number: int,
    probes: mp.Queue[Acknowledged] | None,
    result: Connection,
    parent_pid: int,
) -> None:
    die_with_parent(parent_pid)
    name_process(f"replay-send-{number}")
    ledger = Ledger(plan, counts, number, probes)
    threads = [
        threading.Thread(target=_Line(device, port, share, plan, ledger).run, daemon=True)
        for device, port in placed
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

    def __init__(self, device: Device, port: int, share: int, plan: Plan, ledger: Ledger) -> None:
        self._device, self._port, self._share, self._plan, self._ledger = device, port, share, plan, ledger
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
            port=self._port,
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
