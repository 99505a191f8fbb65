"""Where things lie in the archive, be it a folder or a bucket: ``segments/<key>``, a README and a restore script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Final
from uuid import UUID

from schemas.identifiers import SegmentKey, is_tenant

SEGMENTS: Final = "segments"
JOURNAL: Final = "journal"
#: Where the catalog's few small files lie in the archive's root.
STATE: Final = "catalog"
#: The one of them that is written to see the store's clock.
CLOCK: Final = "clock"
SUFFIX: Final = ".tar"
#: What the archive's root holds for whoever finds it without this software: file name, and its source here.
BESIDE: Final = {"README.txt": "readme.txt", "restore.py": "restore_script.py"}

_KEY = re.compile(r"(?P<tenant>[a-z0-9][a-z0-9-]{0,62})/(\d{4}/\d{2}/\d{2}/)?(?P<name>[0-9a-z-]{1,64})\.tar")


def segments_folder(archive_dir: Path) -> Path:
    """The folder that keys are relative to."""
    return archive_dir / SEGMENTS


def instance_key(tenant: str, segment_id: str) -> SegmentKey:
    """The key of a segment of instances: ``tenant/yyyy/mm/dd/<uuid7>.tar``, the day being that of the id.

    Raises:
        ValueError: `tenant` cannot name a tenant, or `segment_id` is no UUIDv7.
    """
    if not is_tenant(tenant):
        raise ValueError("not the name of a tenant")
    return SegmentKey(f"{tenant}/{made_at(segment_id):%Y/%m/%d}/{segment_id}{SUFFIX}")


def journal_key(segment_id: str) -> SegmentKey:
    """The key of a journal entry."""
    return SegmentKey(f"{JOURNAL}/{segment_id}{SUFFIX}")


def path_of(archive_dir: Path, key: str) -> Path:
    """The file of a segment; a key comes from a message or a catalog and is not trusted as a path.

    Raises:
        FileNotFoundError: no segment can have this key.
    """
    return segments_folder(archive_dir) / checked(key)


def checked(key: str) -> SegmentKey:
    """A key that came from a message or a catalog.

    Raises:
        FileNotFoundError: no segment can have this key.
    """
    if not is_key(key):
        raise FileNotFoundError("no segment has such a key")
    return SegmentKey(key)


def is_key(name: str) -> bool:
    """Whether a segment can have this name below ``segments/``."""
    return _KEY.fullmatch(name) is not None


def beside() -> Iterator[tuple[str, bytes]]:
    """What the root holds beside the segments: names and contents."""
    for name, source in BESIDE.items():
        yield name, resources.files("archive").joinpath(source).read_bytes()


def id_of(key: str) -> str:
    """What segments are ordered by: the last component without its suffix, a UUIDv7."""
    return key.rpartition("/")[2].removesuffix(SUFFIX)


def made_at(segment_id: str) -> datetime:
    """When an id was made, to the millisecond (RFC 9562 5.7).

    Raises:
        ValueError: it is no UUIDv7.
    """
    identifier = UUID(segment_id)
    if identifier.version != 7:
        raise ValueError("not a UUIDv7")
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)


def later_id(candidate: str, latest: str) -> str:
    """`candidate`, or if the clock went back the next id after `latest`: segments sort in the order they were put."""
    return candidate if candidate > latest else str(UUID(int=UUID(latest).int + 1))
