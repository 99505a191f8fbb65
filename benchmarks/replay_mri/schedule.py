"""The exams of a week: device, start, instances, bytes and lane; the same for the same profile, scale and seed.

Draws are stratified: of n exams the k-th quantile falls into the k-th of n equal parts. So totals are the profile's own
at any scale that has some hundred exams, and a run does not depend on the luck of its seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay_mri.profile import Kind, Profile, second_of_week
from schemas.message import Lane

MIGRATING_DEVICE: Final = "OLD_PACS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One exam as its device sends it."""

    #: Unique in the week, in order of start.
    number: int
    kind: Kind
    #: The device's AE title.
    device: str
    lane: Lane
    #: Seconds since Monday 0 h.
    start_s: float
    instances: int
    #: Of each instance.
    instance_bytes: int
    sending_s: float

    @property
    def size_bytes(self) -> int:
        return self.instances * self.instance_bytes

    def due_s(self, index: int) -> float:
        """When instance `index` is ready to be sent: evenly while the device acquires."""
        return self.start_s + self.sending_s * index / self.instances


def week(profile: Profile, *, scale: float, seed: int) -> tuple[Exam, ...]:
    """`scale` of a week of `profile`: that share of its exams, from that share of its devices; in order of start."""
    rng = np.random.default_rng(seed)
    drafts = sorted(
        (draft for kind in profile.kinds for draft in _drafts(profile, kind, scale, rng)), key=lambda one: one.start_s
    )
    names = {modality: cycle(_names(modality, count * scale)) for modality, count in profile.devices.items()}
    migrating = cycle(_names(MIGRATING_DEVICE, profile.migrating_devices * scale))
    return tuple(
        Exam(
            number=number,
            kind=draft.kind,
            device=next(migrating if draft.lane is Lane.BULK else names[draft.kind.modality]),
            lane=draft.lane,
            start_s=draft.start_s,
            instances=draft.instances,
            instance_bytes=draft.instance_bytes,
            sending_s=draft.kind.sending_s,
        )
        for number, draft in enumerate(drafts)
    )


def within(exams: Sequence[Exam], *, begin_s: float, seconds: float) -> list[Exam]:
    """Exams of which something is due from `begin_s` on, for `seconds`."""
    return [exam for exam in exams if exam.start_s < begin_s + seconds and exam.start_s + exam.sending_s > begin_s]


def due_within(exam: Exam, *, begin_s: float, seconds: float) -> range:
    """The instances of `exam` that are due in that window."""
    each_s = exam.sending_s / exam.instances
    first, end = ((edge_s - exam.start_s) / each_s for edge_s in (begin_s, begin_s + seconds))
    return range(max(0, int(np.ceil(first))), min(exam.instances, max(0, int(np.ceil(end)))))


@dataclass(frozen=True, slots=True)
class _Draft:
    kind: Kind
    start_s: float
    instances: int
    instance_bytes: int
    lane: Lane


def _drafts(profile: Profile, kind: Kind, scale: float, rng: np.random.Generator) -> Iterator[_Draft]:
    count = max(1, round(kind.exams_week * scale))
    starts_s = second_of_week(_quantiles(count, rng))
    instances = kind.instances.at(rng.permutation(_quantiles(count, rng)))
    sizes_bytes = kind.instance_bytes.at(rng.permutation(_quantiles(count, rng)))
    lanes = rng.permutation(_lanes(profile, count))
    for start_s, number, size_bytes, lane in zip(starts_s, instances, sizes_bytes, lanes, strict=True):
        yield _Draft(kind, float(start_s), max(1, round(float(number))), round(float(size_bytes)), Lane(str(lane)))


def _quantiles(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One in each of `count` equal parts of 0 to 1, in order."""
    return (np.arange(count) + rng.random(count)) / count


def _lanes(profile: Profile, count: int) -> list[str]:
    urgent, bulk = round(count * profile.urgent_share), round(count * profile.bulk_share)
    return [str(Lane.URGENT)] * urgent + [str(Lane.BULK)] * bulk + [str(Lane.ROUTINE)] * (count - urgent - bulk)


def _names(prefix: str, count: float) -> list[str]:
    return [f"{prefix}_{number:03d}" for number in range(1, max(1, round(count)) + 1)]
