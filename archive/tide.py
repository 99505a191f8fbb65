"""The tide as the archive's own file has it: how a restored catalog is told from the one that kept the archive.

``catalog/tide.json`` holds the life of the catalog and its tide, written after each transaction that raised it. So the
catalog is never behind the file, unless it was restored from a backup; and its life is another one if it was made anew.
"""

from __future__ import annotations

import json
from typing import Final

from archive.incarnation import Incarnation
from archive.segment_store import SegmentStore

NAME: Final = "tide.json"


def read(store: SegmentStore) -> Incarnation | None:
    """What was written last; None if nothing was, or if it cannot be read."""
    body = store.read_state(NAME)
    try:
        given = json.loads(body or b"")
        return Incarnation(id=str(given["incarnation"]), tide=int(given["tide"]))
    except (ValueError, KeyError, TypeError):
        return None


def write(store: SegmentStore, life: Incarnation) -> None:
    """Write it, durably. Raises OutOfSpace, Retryable."""
    store.put_state(NAME, json.dumps({"incarnation": life.id, "tide": life.tide}).encode())


def is_restored(written: Incarnation | None, life: Incarnation) -> bool:
    """Whether the catalog that lives now is behind the one that kept the archive, or another one."""
    return written is not None and (written.id != life.id or written.tide > life.tide)
