"""The name of a segment as a type, and the one rule that says which UIDs are safe as keys."""

from __future__ import annotations

import re
from typing import NewType

SegmentKey = NewType("SegmentKey", str)
"""The name of a segment inside its store: ``tenant/yyyy/mm/dd/<uuid7>.tar`` or ``journal/<uuid7>.tar``."""

UID_LENGTH_MAX = 64

_CONFORMING_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_SAFE_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def is_conforming_uid(uid: str) -> bool:
    """Whether `uid` follows PS3.5 9.1: dotted numbers without leading zeros, 64 characters at most."""
    return len(uid) <= UID_LENGTH_MAX and _CONFORMING_UID.fullmatch(uid) is not None


def is_safe_uid(uid: str) -> bool:
    """Whether `uid` may be used as a key, in names and in URLs: conforming or odd, but never able to leave a folder.

    Odd UIDs (letters, leading zeros, up to 128 characters) occur in real files and are accepted with a warning.
    """
    return _SAFE_UID.fullmatch(uid) is not None and ".." not in uid


def is_tenant(name: str) -> bool:
    """Whether `name` may name a tenant: lower-case letters, digits and hyphens, 63 at most."""
    return _TENANT.fullmatch(name) is not None and name != "journal"
