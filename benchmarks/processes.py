"""A receiver as a process tree: its CPU time, peak memory and bytes written, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process tree has used so far."""

    cpu_s: float
    written_bytes: int
    #: Largest resident set of each process, by name of its role or program.
    peak_rss_bytes: dict[str, int]
    cpu_s_by_name: dict[str, float]

    def since(self, earlier: Usage) -> Usage:
        """The difference of the running totals; peaks are those of now."""
        by_name = {
            name: round(cpu_s - earlier.cpu_s_by_name.get(name, 0.0), 3) for name, cpu_s in self.cpu_s_by_name.items()
        }
        return Usage(
            cpu_s=round(self.cpu_s - earlier.cpu_s, 3),
            written_bytes=self.written_bytes - earlier.written_bytes,
            peak_rss_bytes=self.peak_rss_bytes,
            cpu_s_by_name=by_name,
        )


def usage_of(root_pid: int) -> Usage:
    """Usage of `root_pid` and all its descendants that are alive."""
    cpu: dict[str, float] = {}
    peaks: dict[str, int] = {}
    written = 0
    for pid in tree(root_pid):
        try:
            name, stat = _name(pid), Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            peak = _status_kib(pid, "VmHWM") * 1024
            written += _written_bytes(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        cpu[name] = cpu.get(name, 0.0) + (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
        peaks[name] = max(peaks.get(name, 0), peak)
    return Usage(cpu_s=sum(cpu.values()), written_bytes=written, peak_rss_bytes=peaks, cpu_s_by_name=cpu)


def tree(root_pid: int) -> Iterator[int]:
    """`root_pid` and its descendants."""
    yield root_pid
    for task in Path(f"/proc/{root_pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from tree(int(child))


def named(root_pid: int, name: str) -> int:
    """The process called `name` in the tree of `root_pid`.

    Raises:
        LookupError: there is none.
    """
    for pid in tree(root_pid):
        if _name(pid) == name:
            return pid
    raise LookupError(name)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def _written_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0
