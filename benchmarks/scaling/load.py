"""Devices that offer one rate, evenly, in many small studies; and who was acknowledged when."""

from __future__ import annotations

import math
import multiprocessing as mp
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.replay_mri.content import pictures
from benchmarks.replay_mri.devices import Device
from benchmarks.replay_mri.profile import STRESS
from benchmarks.replay_mri.schedule import Exam
from benchmarks.replay_mri.sender import Senders
from benchmarks.replay_mri.tally import Acknowledged, Plan, Tally
from schemas.message import Lane

#: Instances of one load: what its queue holds.
INSTANCES_MAX: Final = 100_000
_DEVICES: Final = 10
_START_AFTER_S: Final = 1.0
_LAST_ANSWER_S: Final = 90.0
_COLLECT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What devices send, whoever takes it."""

    instances_per_s: float
    instance_bytes: int
    study_instances: int
    #: Nine digits of every UID.
    run: int

    def devices(self, *, seconds: float, first_study: int) -> list[Device]:
        """Ten devices with studies numbered from `first_study`: together one instance every 1 / rate seconds."""
        sending_s = self._sending_s
        return [
            Device(
                ae_title=f"MR_{number:03d}",
                exams=tuple(
                    self._exam(first_study + number + one * _DEVICES, number, one * sending_s, sending_s)
                    for one in range(self.studies(seconds) // _DEVICES)
                ),
                associations=1,
                paced=True,
            )
            for number in range(_DEVICES)
        ]

    def studies(self, seconds: float) -> int:
        """How many of them there are."""
        return _DEVICES * math.ceil(seconds / self._sending_s)

    @property
    def _sending_s(self) -> float:
        return self.study_instances * _DEVICES / self.instances_per_s

    def _exam(self, study: int, device: int, begins_s: float, sending_s: float) -> Exam:
        return Exam(
            number=study,
            kind=STRESS.kinds[0],
            device=f"MR_{device:03d}",
            lane=Lane.ROUTINE,
            start_s=begins_s + device / self.instances_per_s,
            instances=self.study_instances,
            instance_bytes=self.instance_bytes,
            sending_s=sending_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a load came to."""

    tally: Tally
    acknowledged: Sequence[Acknowledged]


class Load:
    """Sends from `starts_s` (CLOCK_MONOTONIC, a second after construction) for `seconds`; close it."""

    def __init__(self, port: int, devices: Sequence[Device], offer: Offer, *, seconds: float) -> None:
        if seconds * offer.instances_per_s > INSTANCES_MAX:
            raise ValueError(f"a load of more than {INSTANCES_MAX:,} instances")
        pictures()  # drawing them takes a moment that is not the load's
        self.starts_s = time.monotonic() + _START_AFTER_S
        self._seconds = seconds
        self._answers: mp.Queue[Acknowledged] = mp.get_context("fork").Queue(maxsize=INSTANCES_MAX)
        plan = Plan(
            host="127.0.0.1",
            ports=[port],
            starts_s=self.starts_s,
            seconds=seconds,
            begin_s=0.0,
            speed_up=1.0,
            run=offer.run,
            probes_per_s=math.inf,
        )
        self._senders = Senders(devices, plan, processes=1, probes=self._answers)
        self._acknowledged: list[Acknowledged] = []
        self._closed = threading.Event()
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def wait_until(self, at_s: float) -> None:
        """Wait until so many seconds after the start."""
        time.sleep(max(0.0, self.starts_s + at_s - time.monotonic()))

    def result(self) -> Sent:
        """Wait until all is sent and answered.

        Raises:
            RuntimeError: a sender failed or is not done in time, or what it was answered is not told in time.
        """
        tally = self._senders.result(timeout_s=_START_AFTER_S + self._seconds + _LAST_ANSWER_S)
        ends_s = time.monotonic() + _COLLECT_S
        while len(self._acknowledged) < sum(tally.instances.values()):
            if time.monotonic() > ends_s:
                raise RuntimeError("the sender's answers are not all told")
            time.sleep(0.02)
        return Sent(tally=tally, acknowledged=tuple(self._acknowledged))

    def close(self) -> None:
        """End what still runs."""
        self._closed.set()
        self._collector.join()
        self._senders.close()

    def _collect(self) -> None:
        while not self._closed.is_set():
            try:
                self._acknowledged.append(self._answers.get(timeout=0.1))
            except queue.Empty:
                continue
