"""What a region sends in a week: kinds of exams, devices, and the curve of day, night and weekend.

Bytes per exam differ fifty-fold between two real regions, so they are an input: `Profile.sized` gives the same profile
with exams of another mean size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

HOUR_S: Final = 3600
WEEK_S: Final = 7 * 24 * HOUR_S
#: The week's load in the hours when people work: Monday to Friday, 8 to 20.
WORKING_HOURS: Final = 60
KB, MB, GB = 10**3, 10**6, 10**9

#: Exams by hour of a weekday, relative; a day of the weekend has `_WEEKEND` of it.
_DAY: Final = (1, 1, 1, 1, 1, 1, 2, 6, 60, 90, 100, 100, 85, 80, 90, 95, 90, 70, 50, 40, 8, 4, 2, 1)
_WEEKEND: Final = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Evenly spread from `low` to `high`."""

    low: float
    high: float

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def at(self, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.low + quantiles * (self.high - self.low)

    def times(self, factor: float) -> Range:
        return Range(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of exam."""

    name: str
    modality: str
    sop_class_uid: str
    exams_week: int
    instances: Range
    instance_bytes: Range
    #: How long the device sends an exam: it sends while it acquires.
    sending_s: float
    content: Literal["pixels", "cine", "document"] = "pixels"
    #: What grows with the bytes of an exam: slices of a series, or the one picture.
    grows: Literal["instances", "bytes"] = "instances"

    @property
    def bytes_week(self) -> float:
        return self.exams_week * self.instances.mean * self.instance_bytes.mean

    def times(self, factor: float) -> Kind:
        """The same exams, `factor` times as large."""
        if self.grows == "instances":
            return replace(self, instances=self.instances.times(factor))
        return replace(self, instance_bytes=self.instance_bytes.times(factor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a region sends in a week."""

    name: str
    kinds: tuple[Kind, ...]
    #: Scanners by modality; archives that migrate prior exams come on top.
    devices: Mapping[str, int]
    migrating_devices: int
    #: Of all exams: from emergency departments, and prior exams being migrated.
    urgent_share: float
    bulk_share: float

    @property
    def exams_week(self) -> int:
        return sum(kind.exams_week for kind in self.kinds)

    @property
    def bytes_week(self) -> float:
        return sum(kind.bytes_week for kind in self.kinds)

    @property
    def exam_bytes(self) -> float:
        """Mean bytes of an exam."""
        return self.bytes_week / self.exams_week

    @property
    def mean_bytes_per_s(self) -> float:
        """Over the whole week."""
        return self.bytes_week / WEEK_S

    @property
    def working_bytes_per_s(self) -> float:
        """As if the week's load came in its working hours alone: what a region is built for."""
        return self.bytes_week / (WORKING_HOURS * HOUR_S)

    def sized(self, exam_bytes: float) -> Profile:
        """The same profile with exams of that many bytes in the mean."""
        factor = exam_bytes / self.exam_bytes
        return replace(self, kinds=tuple(kind.times(factor) for kind in self.kinds))


def second_of_week(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """When in the week (0: Monday 0 h) that share of its exams has begun."""
    hours = [weight * (_WEEKEND if day >= 5 else 1) for day in range(7) for weight in _DAY]
    begun = np.array([0.0, *accumulate(hours)]) / sum(hours)
    return np.interp(quantiles, begun, np.arange(len(begun)) * HOUR_S)


_MR, _CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"

#: The national cloud: 16,500 MR exams of 4 GB in the mean, 3D ones four times as large as the others.
_MR_WEEK: Final = Kind(
    name="MR",
    modality="MR",
    sop_class_uid=_MR,
    exams_week=13_200,
    instances=Range(low=300, high=1_500),
    instance_bytes=Range(low=100 * KB, high=500 * KB),
    sending_s=480,
)
STRESS: Final = Profile(
    name="stress",
    kinds=(
        _MR_WEEK,
        replace(_MR_WEEK, name="MR 3D", exams_week=3_300, instances=_MR_WEEK.instances.times(4)),
    ),
    devices={"MR": 55},
    migrating_devices=2,
    urgent_share=0.08,
    bulk_share=0.05,
).sized(4 * GB)

#: The regional archive: two million exams a year, 80 MB each in the mean. The mix and the devices are assumed.
DEPARTMENT: Final = Profile(
    name="department",
    kinds=(
        Kind(
            name="CT",
            modality="CT",
            sop_class_uid=_CT,
            exams_week=2_700,
            instances=Range(low=500, high=2_000),
            instance_bytes=Range(low=500 * KB, high=550 * KB),
            sending_s=120,
        ),
        replace(_MR_WEEK, exams_week=3_080, sending_s=1_200),
        Kind(
            name="CR",
            modality="CR",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            exams_week=17_300,
            instances=Range(low=2, high=2),
            instance_bytes=Range(low=15 * MB, high=30 * MB),
            sending_s=20,
            grows="bytes",
        ),
        Kind(
            name="mammography",
            modality="MG",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2",
            exams_week=1_920,
            instances=Range(low=4, high=4),
            instance_bytes=Range(low=30 * MB, high=60 * MB),
            sending_s=60,
            grows="bytes",
        ),
        Kind(
            name="tomosynthesis",
            modality="MG",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.13.1.3",
            exams_week=190,
            instances=Range(low=4, high=4),
            instance_bytes=Range(low=300 * MB, high=1_000 * MB),
            sending_s=120,
            grows="bytes",
        ),
        Kind(
            name="ultrasound",
            modality="US",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.3.1",
            exams_week=9_200,
            instances=Range(low=10, high=40),
            instance_bytes=Range(low=100 * KB, high=2 * MB),
            sending_s=600,
            content="cine",
        ),
        Kind(
            name="report",
            modality="SR",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.104.1",
            exams_week=4_070,
            instances=Range(low=1, high=2),
            instance_bytes=Range(low=10 * KB, high=200 * KB),
            sending_s=5,
            content="document",
            grows="bytes",
        ),
    ),
    devices={"CT": 20, "MR": 16, "CR": 60, "MG": 12, "US": 60, "SR": 4},
    migrating_devices=2,
    urgent_share=0.12,
    bulk_share=0.05,
).sized(80 * MB)

PROFILES: Final = {profile.name: profile for profile in (STRESS, DEPARTMENT)}
