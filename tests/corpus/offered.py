"""What is offered: every file of pydicom's test data and of pydicom-data, in rounds in which no two share a UID."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cli.files import Sendable, examine
from instances.part10 import split
from tests.instances.corpus import paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One file, and the round in which it is sent."""

    path: Path
    #: The path below the environment's packages: the key of the manifest.
    name: str
    sha256: str
    round_: int
    #: As the file says; empty if it says none.
    sop_instance_uid: str

    @property
    def dataset(self) -> tuple[memoryview, str]:
        """The data set without group 2, and its transfer syntax."""
        meta, dataset = split(self.path.read_bytes())
        return dataset, meta.transfer_syntax


@cache
def offered() -> Sequence[Offered]:
    """Every file there is, DICOM or not, in order of name; the same on every machine."""
    seen: Counter[str] = Counter()
    found = []
    for name, path in sorted((path.as_posix().rpartition("/site-packages/")[2], path) for path in paths()):
        examined = examine(path)
        uid = examined.sop_instance_uid if isinstance(examined, Sendable) else ""
        found.append(
            Offered(
                path=path,
                name=name,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
                round_=seen[uid] if uid else 0,
                sop_instance_uid=uid,
            )
        )
        seen[uid] += 1
    return found
