"""Which of the committed versions of an instance a message brought."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from archive.catalog import KnownVersion
from schemas.message import MessageAttributes
from schemas.record import InstanceRecord

#: Versions of one instance, as a `CatalogReader` gives them.
Versions = Sequence[tuple[KnownVersion, InstanceRecord]]


def brought_one(attributes: MessageAttributes, versions: Iterable[KnownVersion]) -> bool:
    """Whether one of these versions is of this very message, and not only of the same content."""
    return any(version.message_id == attributes.id for version in versions)


def receipts_of(attributes: MessageAttributes, versions: Versions) -> Versions:
    """Those that this message brought, or another one with the same file: either gives its bytes back."""
    return [
        (version, record)
        for version, record in versions
        if version.message_id == attributes.id
        or record.attributes.id == attributes.id
        or (attributes.sha256 and record.attributes.sha256 == attributes.sha256)
    ]
