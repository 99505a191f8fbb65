"""Sends readers to compacted segments: rows that still point to an old place are given the new one, and no others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ARRAY, BigInteger, Connection, Text, bindparam, func, select, text, update

from archive import fate, insertion, schema
from archive.wording import ROWS_PER_STATEMENT, one_of
from runtime.errors import Retryable
from schemas.record import PlacedRecord, decode_placed, encode_placed

_MOVE: Final = text(
    "UPDATE version SET segment_id = moved.segment_id, file_offset = moved.file_offset, record = moved.record"
    " FROM unnest(:ids, :old_segments, :old_offsets, :segments, :offsets, :records)"
    " AS moved (id, old_segment_id, old_offset, segment_id, file_offset, record)"
    " WHERE version.id = moved.id AND version.segment_id = moved.old_segment_id"
    " AND version.file_offset = moved.old_offset"
).bindparams(
    *(
        bindparam(name, type_=ARRAY(BigInteger))
        for name in ("ids", "old_segments", "old_offsets", "segments", "offsets")
    ),
    bindparam("records", type_=ARRAY(Text)),
)


class Overtaken(Retryable):
    """Something moved meanwhile; nothing was changed, and what was written is left to the collector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A segment that the compactor has not settled, and the bytes of the versions in it."""

    key: str
    size_bytes: int
    committed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A version, or a quarantine entry, and where it lies."""

    #: 0 of a quarantine entry.
    version_id: int
    segment: str
    offset: int
    #: SOP Instance UID and digest, or the message's id and nothing.
    identity: tuple[str, str]
    #: The index line.
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What lies where and is to be looked for elsewhere from now on."""

    held: Held
    to: PlacedRecord


def tenants_of(connection: Connection) -> Mapping[int, str]:
    """Every tenant: row and name."""
    return dict(connection.execute(select(schema.tenant.c.id, schema.tenant.c.name)).all())


def small(connection: Connection, tenant_id: int, committed_before: str, limit: int) -> Sequence[Small]:
    """The oldest segments of a tenant that are not settled."""
    segment, version = schema.segment, schema.version
    oldest = (
        select(segment.c.id, segment.c.key, segment.c.committed_at)
        .where(segment.c.tenant_id == tenant_id, segment.c.settled == 0, segment.c.fate == "live")
        .where(segment.c.committed_at < committed_before)
        .order_by(segment.c.id)
        .limit(limit)
        .subquery()
    )
    held_bytes = func.coalesce(func.sum(version.c.size_bytes), 0)
    rows = select(oldest.c.key, held_bytes, oldest.c.committed_at).select_from(
        oldest.outerjoin(version, version.c.segment_id == oldest.c.id)
    )
    grouped = rows.group_by(oldest.c.id, oldest.c.key, oldest.c.committed_at).order_by(oldest.c.id)
    return [
        Small(key=key, size_bytes=int(size), committed_at=at) for key, size, at in connection.execute(grouped).all()
    ]


def settle(connection: Connection, keys: Collection[str]) -> None:
    """The compactor need not look at these again."""
    connection.execute(update(schema.segment).where(one_of(connection, schema.segment.c.key, keys)).values(settled=1))


def held_in(connection: Connection, keys: Collection[str]) -> list[Held]:
    """The versions that lie in these segments, in the order of their commits."""
    segment, version, instance = schema.segment, schema.version, schema.instance
    columns = (version.c.id, segment.c.key, version.c.file_offset, instance.c.sop_instance_uid)
    listed, found = sorted(keys), list[Held]()
    for start in range(0, len(listed), ROWS_PER_STATEMENT):
        rows = select(*columns, version.c.wire_sha256, version.c.record).select_from(
            segment.join(version, version.c.segment_id == segment.c.id).join(instance)
        )
        among = one_of(connection, segment.c.key, listed[start : start + ROWS_PER_STATEMENT])
        found += [
            Held(version_id=row, segment=key, offset=offset, identity=(uid, digest), line=line)
            for row, key, offset, uid, digest, line in connection.execute(rows.where(among))
        ]
    return sorted(found, key=lambda one: one.version_id)


def quarantined_of(connection: Connection, tenant: str, message_ids: Collection[str]) -> list[Held]:
    """The quarantine entries of these messages, wherever they lie."""
    table = schema.quarantine
    tenant_id = insertion.tenants(connection, [tenant])[tenant]
    listed, found = sorted(message_ids), list[Held]()
    for start in range(0, len(listed), ROWS_PER_STATEMENT):
        among = one_of(connection, table.c.message_id, listed[start : start + ROWS_PER_STATEMENT])
        rows = select(table.c.message_id, table.c.record).where(table.c.tenant_id == tenant_id, among)
        for message_id, line in connection.execute(rows):
            at = decode_placed(line).location
            found.append(Held(version_id=0, segment=at.segment, offset=at.offset, identity=(message_id, ""), line=line))
    return found


def swap(
    connection: Connection, tenant: str, moves: Sequence[Move], *, written: Collection[str], replaced: Collection[str],
    at: str, all_or_nothing: bool = True,
) -> None:  # fmt: skip
    """Send readers to the segments `written`, and let those go that they replace.

    Raises:
        SegmentCondemned: what was written was given up meanwhile.
        Overtaken: something lies elsewhere by now. Both change nothing.
    """
    tenant_ids = insertion.tenants(connection, [tenant])
    ids = fate.enliven(
        connection,
        {*written, *(move.held.segment for move in moves), *(move.to.location.segment for move in moves)},
        tenant_ids,
        at,
        referred=written,
    )
    moved = _move_versions(connection, [move for move in moves if move.held.version_id], ids)
    moved += sum(_move_entry(connection, move, tenant_ids[tenant]) for move in moves if not move.held.version_id)
    if all_or_nothing and moved != len(moves):
        raise Overtaken(f"{len(moves) - moved} of {len(moves)} instances lie elsewhere by now")
    settle(connection, written)
    fate.replace(connection, replaced, at)


def _move_versions(connection: Connection, moves: Sequence[Move], ids: Mapping[str, int]) -> int:
    moved = 0
    for start in range(0, len(moves), ROWS_PER_STATEMENT):
        piece = moves[start : start + ROWS_PER_STATEMENT]
        given = {
            "ids": [move.held.version_id for move in piece],
            "old_segments": [ids[move.held.segment] for move in piece],
            "old_offsets": [move.held.offset for move in piece],
            "segments": [ids[move.to.location.segment] for move in piece],
            "offsets": [move.to.location.offset for move in piece],
            "records": [encode_placed(move.to).decode() for move in piece],
        }
        moved += connection.execute(_MOVE, given).rowcount
    return moved


def _move_entry(connection: Connection, move: Move, tenant_id: int) -> int:
    table = schema.quarantine
    here = (table.c.tenant_id == tenant_id) & (table.c.message_id == move.held.identity[0])
    moved = update(table).where(here, table.c.record == move.held.line)
    return connection.execute(moved.values(record=encode_placed(move.to).decode())).rowcount
