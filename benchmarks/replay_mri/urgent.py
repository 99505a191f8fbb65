"""The urgent lane alone, and beside bulk that saturates: does an emergency wait for a migration?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.replay_mri.devices import Device
from benchmarks.replay_mri.profile import MB, Kind
from benchmarks.replay_mri.replay import Outcome
from benchmarks.replay_mri.report import percentiles
from benchmarks.replay_mri.schedule import MIGRATING_DEVICE, Exam
from schemas.message import Lane

#: What the urgent lane promises: from the acknowledgement until readers have it, at the 99th percentile.
OBJECTIVE_S: Final = 2.0
_SCANNERS: Final = 2
_INSTANCE_BYTES: Final = 300_000
_BULK_EXAM_INSTANCES: Final = 1_000
_BULK_EXAMS: Final = 1_000


def emergency_scanners(kind: Kind, *, instances_per_s: float, seconds: float, begin_s: float) -> list[Device]:
    """Two scanners that send evenly, together `instances_per_s`."""
    instances = max(1, round(instances_per_s * seconds / _SCANNERS))
    return [
        Device(
            ae_title=f"ER_{number:03d}",
            exams=(_exam(kind, number, f"ER_{number:03d}", Lane.URGENT, begin_s, instances, seconds),),
            associations=1,
            paced=True,
        )
        for number in range(1, _SCANNERS + 1)
    ]


def migration(kind: Kind, *, devices: int, begin_s: float, mb_per_s: float | None) -> list[Device]:
    """Archives that send prior exams as fast as they are answered, or `mb_per_s` together."""
    quota = None if mb_per_s is None else mb_per_s * MB / devices
    return [
        Device(
            ae_title=f"{MIGRATING_DEVICE}_{number:03d}",
            exams=tuple(
                _exam(kind, number * _BULK_EXAMS + one, MIGRATING_DEVICE, Lane.BULK, begin_s, _BULK_EXAM_INSTANCES, 1.0)
                for one in range(_BULK_EXAMS)
            ),
            associations=1,
            paced=False,
            quota_bytes_per_s=quota,
        )
        for number in range(1, devices + 1)
    ]


def verdict(quiet: Outcome, loaded: Sequence[Outcome]) -> dict[str, object]:
    """The urgent lane's p99 in each, and how many times the quiet one it is; met if nothing was left unreadable."""
    alone = percentiles(quiet.found.latencies_s[Lane.URGENT])
    beside = [percentiles(outcome.found.latencies_s[Lane.URGENT]) for outcome in loaded]
    unreadable = [outcome.found.unreadable.get(Lane.URGENT, 0) for outcome in loaded]
    return {
        "objective_s": OBJECTIVE_S,
        "quiet": alone,
        "loaded": beside,
        "ratio_p99": [round(one["p99"] / alone["p99"], 2) if alone.get("p99") else None for one in beside],
        "unreadable": unreadable,
        "met": [
            bool(one) and not left and one["p99"] <= OBJECTIVE_S for one, left in zip(beside, unreadable, strict=True)
        ],
    }


def _exam(kind: Kind, number: int, device: str, lane: Lane, start_s: float, instances: int, sending_s: float) -> Exam:
    return Exam(
        number=number,
        kind=kind,
        device=device,
        lane=lane,
        start_s=start_s,
        instances=instances,
        instance_bytes=_INSTANCE_BYTES,
        sending_s=sending_s,
    )
