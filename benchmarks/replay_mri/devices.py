"""Who sends which exams, and how fast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.replay_mri.schedule import MIGRATING_DEVICE, Exam, within
from schemas.message import Lane

#: The lane of an exam is told by whom its device calls, as scanners of an emergency department are set up to.
CALLED_AE: Final[Mapping[Lane, str]] = {
    Lane.URGENT: "EMERGENCY",
    Lane.ROUTINE: "SANSFILM",
    Lane.BULK: "MIGRATION",
}
#: The receiver's SANSFILM_LANE_RULES for it.
LANE_RULES: Final = ",".join(f"called:{CALLED_AE[lane]}={lane}" for lane in (Lane.URGENT, Lane.BULK))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One sender: its exams one after the other."""

    ae_title: str
    exams: tuple[Exam, ...]
    associations: int
    #: Whether instances wait until they are due, or go as fast as they are answered.
    paced: bool
    #: What it may send at most.
    quota_bytes_per_s: float | None = None


def devices_of(
    exams: Sequence[Exam], *, begin_s: float, seconds: float, paced: bool, bulk_bytes_per_s: float | None = None
) -> list[Device]:
    """The devices of a week that have something to send from `begin_s` on, for `seconds` of that week if paced.

    Half of the scanners have two associations. `bulk_bytes_per_s` is shared by those that migrate.
    """
    chosen = (
        within(exams, begin_s=begin_s, seconds=seconds) if paced else [one for one in exams if one.start_s >= begin_s]
    )
    by_name: dict[str, list[Exam]] = defaultdict(list)
    for exam in chosen:
        by_name[exam.device].append(exam)
    migrating = sum(name.startswith(MIGRATING_DEVICE) for name in by_name)
    return [
        Device(
            ae_title=name,
            exams=tuple(of_device),
            associations=1 + number // 2 % 2,  # in pairs: processes and edges take every second device
            paced=paced,
            quota_bytes_per_s=(
                bulk_bytes_per_s / migrating if bulk_bytes_per_s and name.startswith(MIGRATING_DEVICE) else None
            ),
        )
        for number, (name, of_device) in enumerate(sorted(by_name.items()))
    ]
