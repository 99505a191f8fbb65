"""Real files: pydicom's own test files and those of pydicom-data, found offline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom.data import get_charset_files, get_testdata_files

from instances.description import Description, describe
from instances.part10 import FileMeta, split
from runtime.errors import Rejected, Unfileable


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """One real file, split."""

    path: Path
    file: bytes
    meta: FileMeta
    dataset: memoryview


@cache
def paths() -> tuple[Path, ...]:
    """Every file there is, DICOM or not."""
    found = {*get_testdata_files(), *get_charset_files()}
    return tuple(sorted(path for name in found if (path := Path(name)).is_file()))


def path_of(name: str) -> Path:
    return next(path for path in paths() if path.name == name)


def read(path: Path) -> Real:
    """Raises Rejected if the file is no DICOM file."""
    file = path.read_bytes()
    meta, dataset = split(file)
    return Real(path=path, file=file, meta=meta, dataset=dataset)


@cache
def readable() -> tuple[Real, ...]:
    """Every file that can be split."""
    found = []
    for path in paths():
        try:
            found.append(read(path))
        except Rejected:
            continue
    return tuple(found)


@cache
def fileable() -> tuple[tuple[Real, Description], ...]:
    """Every file that can be filed, with its description."""
    found = []
    for real in readable():
        try:
            found.append((real, describe(real.dataset, real.meta.transfer_syntax)))
        except Unfileable:
            continue
    return tuple(found)
