"""From the acknowledgement until a reader has the instance: found by QIDO-RS and then given by WADO-RS.

A process of its own with one thread a lane. One QIDO-RS request asks for all that is waited for (a list of UIDs), first
every `_POLL_MIN_S`, then with pauses of a twentieth of what the oldest has waited: the figures are at most that much
too large, and a long backlog is not made longer by asking about it.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing as mp
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final
from urllib.parse import urlsplit

from benchmarks.replay_mri.tally import Acknowledged
from runtime.lifecycle import die_with_parent, name_process
from schemas.message import Lane

#: Asked for at one time, in each lane; what is acknowledged meanwhile waits its turn, its time running.
PENDING_MAX: Final = 64
_POLL_MIN_S: Final = 0.02
_POLL_SHARE: Final = 0.05
_TIMEOUT_S: Final = 30.0
_WADO_ACCEPT: Final = "application/dicom; transfer-syntax=*"


@dataclass(slots=True, kw_only=True)
class Found:
    """What the probes came to, by lane."""

    latencies_s: dict[str, list[float]] = field(default_factory=lambda: {lane.value: [] for lane in Lane})
    #: When each was acknowledged, beside its latency.
    acknowledged_s: dict[str, list[float]] = field(default_factory=lambda: {lane.value: [] for lane in Lane})
    #: Acknowledged and not readable when the probes were stopped.
    unreadable: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    errors: int = 0
    cpu_s: float = 0.0


class Probes:
    """The process; started on construction. Senders put into `wanted`."""

    def __init__(self, web: str) -> None:
        fork = mp.get_context("fork")
        self.wanted: mp.Queue[Acknowledged] = fork.Queue(maxsize=10_000)
        self._stop = fork.Event()
        self._result, theirs = fork.Pipe(duplex=False)
        self._process = fork.Process(target=_run, args=(web, self.wanted, self._stop, theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def result(self) -> Found:
        """Stop; what cannot be read by now is counted as unreadable."""
        self._stop.set()
        try:
            found: Found = self._result.recv()
        except EOFError:
            raise RuntimeError("the probes failed; their trace is above") from None
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _run(
    web: str,
    wanted: mp.Queue[Acknowledged],
    stop: threading.Event,
    result: Connection,
    parent_pid: int,
) -> None:
    die_with_parent(parent_pid)
    name_process("replay-probe")
    found = Found()
    lanes = {lane: _LaneProbe(web, lane, stop, found) for lane in Lane}
    for lane in lanes.values():
        lane.start()
    while not stop.is_set():
        try:
            one = wanted.get(timeout=0.1)
        except queue.Empty:
            continue
        lanes[one.lane].waiting.append(one)
    for name, lane in lanes.items():
        lane.join()
        found.unreadable[name.value] = len(lane.waiting)
    found.cpu_s = time.process_time()
    result.send(found)


class _LaneProbe(threading.Thread):
    def __init__(self, web: str, lane: Lane, stop: threading.Event, found: Found) -> None:
        super().__init__(daemon=True)
        self.waiting: deque[Acknowledged] = deque()
        self._address = urlsplit(web)
        self._lane, self._stop_asking, self._found = lane, stop, found
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        last = False
        while not last:
            last = self._stop_asking.is_set()  # once more after the end: what is readable by then counts
            asked = list(self.waiting)[:PENDING_MAX]
            if asked:
                self._ask(asked)
            time.sleep(self._pause_s())

    def _pause_s(self) -> float:
        if not self.waiting:
            return _POLL_MIN_S
        oldest_s = time.monotonic() - self.waiting[0].at_s
        return min(2.0, max(_POLL_MIN_S, _POLL_SHARE * oldest_s))

    def _ask(self, asked: Sequence[Acknowledged]) -> None:
        uids = ",".join(one.instance for one in asked)
        body = self._get(f"/dicom-web/instances?limit={len(asked)}&SOPInstanceUID={uids}", "application/dicom+json")
        there = {instance["00080018"]["Value"][0] for instance in json.loads(body or b"[]")}
        for one in asked:
            if one.instance in there and self._is_given(one):
                self.waiting.remove(one)
                self._found.latencies_s[self._lane].append(time.monotonic() - one.at_s)
                self._found.acknowledged_s[self._lane].append(one.at_s)

    def _is_given(self, one: Acknowledged) -> bool:
        path = f"/dicom-web/studies/{one.study}/series/{one.series}/instances/{one.instance}"
        return self._get(path, _WADO_ACCEPT) is not None

    def _get(self, path: str, accept: str) -> bytes | None:
        """The body of a 200; None for anything else."""
        self._found.requests += 1
        try:
            if self._connection is None:
                address = self._address
                self._connection = http.client.HTTPConnection(
                    address.hostname or "127.0.0.1", address.port, timeout=_TIMEOUT_S
                )
            self._connection.request("GET", path, headers={"Accept": accept})
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection = None  # an idle connection was closed
            self._found.errors += 1
            return None
        if response.status not in (200, 204):
            self._found.errors += 1
        return body if response.status == 200 else None
