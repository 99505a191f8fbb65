"""The files: as many and as large as those of the published figure, in the sizes of MR and CT slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.replay_mri.content import ExamContent
from benchmarks.replay_mri.profile import DEPARTMENT, STRESS, Kind
from benchmarks.replay_mri.schedule import Exam
from instances.part10 import file_header
from schemas.message import Lane

INSTANCES: Final = 1_635
#: By rows and columns of a slice of 16-bit samples: how many of 1,635. With their headers 356 MB.
SIDES: Final[Mapping[int, int]] = {256: 677, 320: 550, 384: 265, 512: 143}
_STUDY_INSTANCES_MAX: Final = 250
_MR, _CT = STRESS.kinds[0], next(kind for kind in DEPARTMENT.kinds if kind.name == "CT")


def mix(instances: int) -> dict[int, int]:
    """`instances` in the same proportions; the rest is of the smallest size."""
    counts = {side: count * instances // INSTANCES for side, count in SIDES.items()}
    smallest = min(SIDES)
    counts[smallest] += instances - sum(counts.values())
    return counts


def write_study_set(folder: Path, *, instances: int, run: int) -> list[Path]:
    """Write Part-10 files, study after study; `run` are nine digits of every UID. Gives their paths."""
    folder.mkdir(parents=True)
    paths = list[Path]()
    for exam in _exams(instances):
        content = ExamContent(exam, run=run)
        for index in range(exam.instances):
            uid, dataset = content.instance(index)
            header = file_header(
                sop_class_uid=exam.kind.sop_class_uid, sop_instance_uid=uid, transfer_syntax=content.transfer_syntax
            )
            path = folder / f"{len(paths):05d}.dcm"
            path.write_bytes(header + dataset)
            paths.append(path)
    return paths


def _exams(instances: int) -> Iterator[Exam]:
    number = 0
    for side, count in mix(instances).items():
        for begin in range(0, count, _STUDY_INSTANCES_MAX):
            yield _exam(number, side, min(_STUDY_INSTANCES_MAX, count - begin))
            number += 1


def _exam(number: int, side: int, instances: int) -> Exam:
    kind: Kind = replace(_CT if side == max(SIDES) else _MR, content="pixels")
    return Exam(
        number=number,
        kind=kind,
        device="",
        lane=Lane.ROUTINE,
        start_s=0.0,
        instances=instances,
        instance_bytes=2 * side * side,
        sending_s=1.0,
    )
