"""What was lost and is sent again is there again: its version points to the bytes that came last."""

from __future__ import annotations

from collections.abc import Sequence

from archive.catalog import Catalog, SegmentCondemned
from archive.segment_store import SegmentStore
from runtime.logs import get_logger
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord


def is_there(store: SegmentStore, location: MemberLocation) -> bool:
    """Whether a member's segment is there and long enough; nothing is read. Raises Retryable."""
    try:
        return store.size_bytes(location.segment) >= location.offset + location.size_bytes
    except FileNotFoundError:
        return False


def heal(store: SegmentStore, catalog: Catalog, same: Sequence[PlacedRecord]) -> None:
    """Look at what was put and turned out to be committed already: whether the committed bytes are there.

    Raises:
        Retryable: do it again.
    """
    for placed in same:
        record = placed.record
        assert isinstance(record, InstanceRecord)
        tenant, uid = record.attributes.tenant, record.instance.sop_instance_uid
        for version in catalog.known(tenant, [uid]).get(uid, ()):
            if version.wire_sha256 != record.wire_sha256 or is_there(store, version.location):
                continue
            done = _relocated(catalog, placed, version.location)
            get_logger().error(
                "lost_version_healed", segment=version.location.segment, by=record.attributes.id, done=done
            )


def _relocated(catalog: Catalog, placed: PlacedRecord, lost: MemberLocation) -> bool:
    try:
        return catalog.relocate(placed, lost=lost)
    except SegmentCondemned:  # the new copy is being collected: the next sending heals it
        return False
