"""A version whose segment was lost points to where the same content was put again."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from archive import fate, insertion, schema
from archive.insertion import filed, key_of
from archive.tally import Tally
from schemas.record import MemberLocation, PlacedRecord


def relocate(connection: Connection, placed: PlacedRecord, lost: MemberLocation, committed_at: str) -> bool:
    """Let the version with the content of `placed` lie where `placed` does, if it still lies at `lost`.

    It is described as a rebuild would describe it, which finds no more than the new copy; its number, its verdict and
    when it was committed stay.

    Raises:
        SegmentCondemned: the collector is removing the new copy; nothing was changed.
    """
    key, record, version = key_of(placed), filed(placed), schema.version
    held = insertion.held(connection, [key]).get(key)
    numbers = [
        number
        for number, known in enumerate(held.versions if held else (), 1)
        if (known.wire_sha256, known.location) == (record.wire_sha256, lost)
    ]
    if held is None or not numbers:
        return False
    tenant_id = insertion.tenants(connection, [key[0]])[key[0]]
    segment = placed.location.segment
    segment_id = fate.enliven(connection, [segment], {key[0]: tenant_id}, committed_at, referred=[segment])[segment]
    row = insertion.version_row(
        placed,
        instance_id=held.instance_id,
        number=numbers[0],
        segment_id=segment_id,
        verdict="",
        committed_at=committed_at,
    )
    del row["verdict"], row["committed_at"]
    there = select(schema.segment.c.id).where(schema.segment.c.key == lost.segment).scalar_subquery()
    here = (version.c.instance_id == held.instance_id) & (version.c.number == numbers[0])
    if not connection.execute(update(version).where(here, version.c.segment_id == there).values(row)).rowcount:
        return False  # another worker was faster
    tally = Tally()
    tally.count(tenant_id, "bytes", placed.location.size_bytes - lost.size_bytes)
    tally.write(connection)
    return True
