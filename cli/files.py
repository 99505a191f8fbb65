"""What can be sent: Part-10 files, their transfer syntax, and where their data set begins."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from instances.head import HEAD_BYTES, read_head
from instances.part10 import split
from runtime.errors import Rejected

_DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sendable:
    """An instance in a file."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    #: Where the data set begins; it ends with the file.
    dataset_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsendable:
    """A file that is no instance, and why."""

    path: Path
    reason: str


def find_files(paths: Iterable[Path]) -> Iterator[Sendable | Unsendable]:
    """Everything in `paths`, folders walked in order of name; hidden files are left out of folders."""
    for path in paths:
        if path.is_dir():
            files = (file for file in sorted(path.rglob("*")) if file.is_file())
            yield from (examine(file) for file in files if not file.name.startswith("."))
        else:
            yield examine(path)


def examine(path: Path) -> Sendable | Unsendable:
    """Read the head of one file."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return Unsendable(path=path, reason="the file is empty")
            return _examine(path, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        return Unsendable(path=path, reason="there is no such file")
    except OSError as error:
        return Unsendable(path=path, reason=(error.strerror or type(error).__name__).lower())
    except Rejected as error:
        return Unsendable(path=path, reason=error.detail or str(error.reason))


def _examine(path: Path, content: memoryview) -> Sendable | Unsendable:
    meta, dataset = split(content)
    sop_class_uid, sop_instance_uid = meta.sop_class_uid, meta.sop_instance_uid
    try:
        head = read_head(dataset[:HEAD_BYTES], meta.transfer_syntax)
        sop_class_uid = head.sop_class_uid or sop_class_uid
        sop_instance_uid = head.sop_instance_uid
    except Rejected:
        if not sop_instance_uid:
            raise
    if _DICOMDIR in (meta.sop_class_uid, sop_class_uid):
        return Unsendable(path=path, reason="a DICOMDIR is an index of files, not an instance")
    if not sop_class_uid:
        return Unsendable(path=path, reason="it names no SOP class")
    return Sendable(
        path=path,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax=meta.transfer_syntax,
        dataset_offset=meta.dataset_offset,
        size_bytes=len(dataset),
    )
