"""What runs while a replay sends: rate and lag from /metrics; CPU, memory and bytes written of roles from /proc."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import samples as metrics
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import usage_of

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_TIMEOUT_S: Final = 10.0
_RECEIVED, _VERDICTS = "sansfilm_instances_received_total", "sansfilm_verdicts_total"
_FORWARDED, _LAG = "sansfilm_forwarded_total", "sansfilm_log_lag_messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleUsage:
    """What a role's processes have used so far, children that ended included."""

    cpu_s: float
    written_bytes: int
    #: Of each process given its tree's largest, together: what PostgreSQL's backends share counts once.
    rss_bytes_max: int

    def since(self, earlier: RoleUsage) -> RoleUsage:
        """The difference of the running totals; the peak is that of now."""
        return RoleUsage(
            cpu_s=round(self.cpu_s - earlier.cpu_s, 3),
            written_bytes=self.written_bytes - earlier.written_bytes,
            rss_bytes_max=self.rss_bytes_max,
        )


def usage_by_role(pids: Mapping[str, Sequence[int]]) -> dict[str, RoleUsage]:
    """Of each role's processes and their descendants."""
    return {role: _role(of_role) for role, of_role in pids.items()}


def _role(pids: Sequence[int]) -> RoleUsage:
    usages = [usage_of(pid) for pid in pids]
    return RoleUsage(
        cpu_s=sum(usage.cpu_s for usage in usages) + sum(map(_ended_children_cpu_s, pids)),
        written_bytes=sum(usage.written_bytes for usage in usages),
        rss_bytes_max=sum(max(usage.peak_rss_bytes.values(), default=0) for usage in usages),
    )


def _ended_children_cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(stat[13]) + int(stat[14])) / _TICKS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUsage:
    """What all processors together have done so far, in seconds (proc(5), /proc/stat)."""

    busy_s: float
    #: Nothing to run, and waiting for a disk.
    disk_wait_s: float
    idle_s: float
    #: Taken by the host from a virtual machine.
    stolen_s: float

    def since(self, earlier: MachineUsage) -> MachineUsage:
        """The difference."""
        return MachineUsage(
            busy_s=round(self.busy_s - earlier.busy_s, 2),
            disk_wait_s=round(self.disk_wait_s - earlier.disk_wait_s, 2),
            idle_s=round(self.idle_s - earlier.idle_s, 2),
            stolen_s=round(self.stolen_s - earlier.stolen_s, 2),
        )


def machine_usage() -> MachineUsage:
    """Of this machine, now."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, idle, disk_wait, irq, soft_irq, stolen = (int(one) / _TICKS_PER_S for one in fields)
    return MachineUsage(
        busy_s=user + nice + system + irq + soft_irq, disk_wait_s=disk_wait, idle_s=idle, stolen_s=stolen
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The running totals of a system, as its /metrics say."""

    #: Instances acknowledged, and messages committed or quarantined.
    received: int
    committed: int
    #: Messages shipped from spools to the log; None where there is no forwarder.
    forwarded: int | None
    lag_by_lane: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A look at some second of the run; counts are since its start."""

    at_s: float
    acknowledged: int
    committed: int
    waiting: int
    #: Of what waits, what the edges' forwarders have not shipped yet.
    spooled: int
    lag_by_lane: Mapping[str, int]


def look(pages: Sequence[str]) -> Look:
    """Sum the counters of every page given: URLs, or paths of the Unix sockets of single processes.

    Raises:
        OSError: a page cannot be read.
    """
    received = committed = 0.0
    forwarded: float | None = None
    lag: dict[str, int] = {}
    for sample in itertools.chain.from_iterable(map(_counted, pages)):
        if sample.name == _RECEIVED:
            received += sample.value
        elif sample.name == _VERDICTS and sample.labels["verdict"] != "decision":
            committed += sample.value
        elif sample.name == _FORWARDED:
            forwarded = (forwarded or 0.0) + sample.value
        elif sample.name == _LAG:
            lane = sample.labels["lane"]
            lag[lane] = lag.get(lane, 0) + int(sample.value)
    shipped = None if forwarded is None else int(forwarded)
    return Look(received=int(received), committed=int(committed), forwarded=shipped, lag_by_lane=lag)


def _counted(page: str) -> Iterator[metrics.Sample]:
    """The samples of a page that are looked at. Parsing the others would cost the machine that is measured."""
    text = _of_socket(page) if page.startswith("/") else _of_url(page)
    lines = [line for line in text.splitlines() if line.startswith((_RECEIVED, _VERDICTS, _FORWARDED, _LAG))]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        yield from family.samples


def _of_url(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def _of_socket(path: str) -> str:
    """As `runtime.health` serves it, with more patience than it has itself: a process at nice 19 takes its time."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(_TIMEOUT_S)
        peer.connect(path)
        peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2].decode()


class Gauges:
    """Looks at a system every `interval_s` in a thread until closed; `on_sample` is called in that thread.

    Where others send to it too (`shared`), what they left waiting is waited for.
    """

    def __init__(
        self,
        pages: Sequence[str],
        *,
        starts_s: float,
        interval_s: float,
        shared: bool = False,
        on_sample: Callable[[Sample], None] = lambda _: None,
    ) -> None:
        self.samples: list[Sample] = []
        self._pages, self._starts_s, self._interval_s, self._on_sample = pages, starts_s, interval_s, on_sample
        self._first = look(pages)
        self._waited = sum(self._first.lag_by_lane.values()) if shared else 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> Sample:
        """Look now."""
        now, first = look(self._pages), self._first
        received, committed = now.received - first.received, now.committed - first.committed
        sample = Sample(
            at_s=round(time.monotonic() - self._starts_s, 2),
            acknowledged=received,
            committed=committed,
            waiting=max(0, self._waited + received - committed),
            spooled=0 if now.forwarded is None else max(0, received - now.forwarded + (first.forwarded or 0)),
            lag_by_lane=now.lag_by_lane,
        )
        self.samples.append(sample)
        self._on_sample(sample)
        return sample

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.take()
            except OSError:
                continue
