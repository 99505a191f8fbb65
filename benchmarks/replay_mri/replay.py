"""One run: devices against a target, until the window is over and everything acknowledged is committed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.replay_mri.content import pictures
from benchmarks.replay_mri.devices import Device
from benchmarks.replay_mri.gauges import (
    Gauges,
    MachineUsage,
    RoleUsage,
    Sample,
    machine_usage,
    usage_by_role,
)
from benchmarks.replay_mri.probes import Found, Probes
from benchmarks.replay_mri.schedule import due_within
from benchmarks.replay_mri.sender import Senders
from benchmarks.replay_mri.sink import sink
from benchmarks.replay_mri.tally import Plan, Tally
from benchmarks.replay_mri.targets import Target

_START_AFTER_S: Final = 1.0
_LAST_ANSWER_S: Final = 90.0
_DRAIN_POLL_S: Final = 0.05
_WARM_UP_DRAIN_S: Final = 180.0
OnSample = Callable[[str, Sample], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a run goes; what the command line says."""

    #: Of the week: where the window begins. Of the clock: how long it is.
    begin_s: float
    seconds: float
    speed_up: float
    sender_processes: int
    probes_per_s: float
    drain_timeout_s: float
    interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. Usage is from the first byte sent until everything was committed."""

    tally: Tally
    #: What the schedule has due in the window; 0 where devices went as fast as they were answered.
    offered_instances: int
    offered_bytes: float
    seconds: float
    #: After the window, until nothing waited any more; None: never in time.
    drain_s: float | None
    samples: Sequence[Sample]
    found: Found
    usage: Mapping[str, RoleUsage]
    #: The whole machine meanwhile, and this process's own part (gauges).
    machine: MachineUsage
    own_cpu_s: float
    #: On the run's own clock: 0 is the first byte.
    starts_s: float

    @property
    def instances(self) -> int:
        return sum(self.tally.instances.values())

    @property
    def sent_bytes(self) -> int:
        return sum(self.tally.sent_bytes.values())

    @property
    def others_share(self) -> float:
        """Of all processor time, what neither the system nor the senders and probes used: kernel threads, strangers."""
        machine = self.machine
        ours_s = sum(usage.cpu_s for usage in self.usage.values())
        ours_s += self.tally.cpu_s + self.found.cpu_s + self.own_cpu_s
        total_s = machine.busy_s + machine.idle_s + machine.disk_wait_s + machine.stolen_s
        return max(0.0, machine.busy_s - ours_s) / total_s if total_s else 0.0

    @property
    def waiting_max(self) -> int:
        """Most messages acknowledged and not committed."""
        return max((sample.waiting for sample in self.samples), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What the same senders reach against a sink."""

    instances_per_s: float
    bytes_per_s: float
    cpu_ms_per_instance: float


def replay(target: Target, devices: Sequence[Device], pace: Pace, *, on_sample: OnSample = lambda *_: None) -> Outcome:
    """Send, watch, wait until it is committed, and count."""
    with ExitStack() as stack:
        probes = stack.enter_context(closing(Probes(target.web)))
        plan = _plan(target.host, target.ports, pace)
        senders = stack.enter_context(
            closing(Senders(devices, plan, processes=pace.sender_processes, probes=probes.wanted))
        )
        before, machine, own_s = usage_by_role(target.pids), machine_usage(), time.process_time()
        gauges = stack.enter_context(
            closing(
                Gauges(
                    target.pages,
                    starts_s=plan.starts_s,
                    interval_s=pace.interval_s,
                    shared=target.shared,
                    on_sample=lambda sample: on_sample(target.name, sample),
                )
            )
        )
        tally = senders.result(timeout_s=_START_AFTER_S + pace.seconds + _LAST_ANSWER_S)
        drain_s = _drain(gauges, plan, pace)
        usage = {role: now.since(before[role]) for role, now in usage_by_role(target.pids).items()}
        machine, own_s = machine_usage().since(machine), time.process_time() - own_s
        found = probes.result()
    offered = [
        (len(due), exam.instance_bytes)
        for device in devices
        if device.paced
        for exam in device.exams
        if (due := due_within(exam, begin_s=pace.begin_s, seconds=pace.seconds * pace.speed_up))
    ]
    return Outcome(
        tally=tally,
        offered_instances=sum(count for count, _ in offered),
        offered_bytes=float(sum(count * size for count, size in offered)),
        seconds=pace.seconds,
        drain_s=drain_s,
        samples=tuple(gauges.samples),
        found=found,
        usage=usage,
        machine=machine,
        own_cpu_s=own_s,
        starts_s=plan.starts_s,
    )


def warm_up(target: Target, devices: Sequence[Device], pace: Pace, *, seconds: float) -> None:
    """Send the same for some seconds and forget it: a broker compiles itself meanwhile.

    Raises:
        RuntimeError: it was not committed in time.
    """
    before = replace(pace, seconds=seconds, drain_timeout_s=_WARM_UP_DRAIN_S, probes_per_s=0.0)
    if replay(target, devices, before).drain_s is None:
        raise RuntimeError(f"what was sent to warm up is not committed after {_WARM_UP_DRAIN_S:g} s")


def ceiling(devices: Sequence[Device], pace: Pace, *, seconds: float) -> Ceiling:
    """Send the same for some seconds to a sink, as fast as it answers."""
    unpaced = [
        Device(ae_title=one.ae_title, exams=one.exams, associations=one.associations, paced=False) for one in devices
    ]
    with sink() as (port, _):
        plan = _plan("127.0.0.1", [port], pace, seconds=seconds)
        with closing(Senders(unpaced, plan, processes=pace.sender_processes)) as senders:
            tally = senders.result(timeout_s=_START_AFTER_S + seconds + _LAST_ANSWER_S)
    instances = max(1, sum(tally.instances.values()))
    return Ceiling(
        instances_per_s=round(instances / seconds, 1),
        bytes_per_s=round(sum(tally.sent_bytes.values()) / seconds),
        cpu_ms_per_instance=round(tally.cpu_s / instances * 1e3, 3),
    )


def _plan(host: str, ports: Sequence[int], pace: Pace, *, seconds: float | None = None) -> Plan:
    pictures()  # drawing them takes a moment that is not the run's
    return Plan(
        host=host,
        ports=ports,
        starts_s=time.monotonic() + _START_AFTER_S,
        seconds=pace.seconds if seconds is None else seconds,
        begin_s=pace.begin_s,
        speed_up=pace.speed_up,
        run=100_000_000 + secrets.randbelow(900_000_000),
        probes_per_s=pace.probes_per_s / pace.sender_processes,
    )


def _drain(gauges: Gauges, plan: Plan, pace: Pace) -> float | None:
    """Seconds after the window until nothing waits, to the interval of the gauges."""
    deadline_s = time.monotonic() + pace.drain_timeout_s
    sent_s = time.monotonic() - plan.starts_s
    while time.monotonic() < deadline_s:
        last = gauges.samples[-1] if gauges.samples else None
        if last is not None and last.at_s >= sent_s and last.waiting <= 0:
            return round(max(0.0, last.at_s - pace.seconds), 2)
        time.sleep(_DRAIN_POLL_S)
    return None
