"""What becomes of segments: one row a key, whose insert decides.

    live        a transaction has committed a batch with it
    condemned   the collector found that nothing refers to it: no transaction may any more, and its bytes go
    replaced    everything in it was copied elsewhere, and readers have been sent there: its bytes go after a grace

A commit and the collector insert the same unique key, and whoever comes second sees what the first one said. A row
stays when the bytes are gone, so that a worker that comes back after days meets it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum

from sqlalchemy import Connection, select, update

from archive import insertion, schema
from archive.catalog import SegmentCondemned
from archive.wording import ROWS_PER_STATEMENT, insert_rows, one_of


class Fate(StrEnum):
    """What becomes of a segment."""

    LIVE = "live"
    CONDEMNED = "condemned"
    REPLACED = "replaced"


def without_row(connection: Connection, keys: Collection[str]) -> list[str]:
    """Those of `keys`, in their order, of which nothing was said yet."""
    found: set[str] = set()
    listed, table = list(keys), schema.segment
    for start in range(0, len(listed), ROWS_PER_STATEMENT):
        among = one_of(connection, table.c.key, listed[start : start + ROWS_PER_STATEMENT])
        found.update(connection.scalars(select(table.c.key).where(among)))
    return [key for key in listed if key not in found]


def live(connection: Connection, keys: Collection[str]) -> list[str]:
    """Those of `keys` that are live."""
    listed, table, found = list(keys), schema.segment, list[str]()
    for start in range(0, len(listed), ROWS_PER_STATEMENT):
        among = one_of(connection, table.c.key, listed[start : start + ROWS_PER_STATEMENT])
        found += connection.scalars(select(table.c.key).where(among, table.c.fate == Fate.LIVE.value))
    return found


def enliven(
    connection: Connection,
    keys: Iterable[str],
    tenant_ids: Mapping[str, int],
    committed_at: str,
    *,
    referred: Collection[str] = (),
) -> dict[str, int]:
    """Ids of segments by key, which are live from now on; a key begins with its tenant.

    One that was replaced stays so: a batch that comes again after days may name it. New rows refer to `referred`.

    Raises:
        SegmentCondemned: the collector was first, or what is referred to was replaced.
    """
    segment = schema.segment
    rows = [
        {"tenant_id": tenant_ids[key.partition("/")[0]], "key": key, "committed_at": committed_at}
        for key in sorted(keys)
    ]
    inserted = insert_rows(connection, segment, rows, ignoring=True, returning=("key", "id"))
    ids: dict[str, int] = dict(inserted)
    condemned: list[str] = []
    missing = [row["key"] for row in rows if row["key"] not in ids]
    for start in range(0, len(missing), ROWS_PER_STATEMENT):
        among = one_of(connection, segment.c.key, missing[start : start + ROWS_PER_STATEMENT])
        for key, row, fate in connection.execute(select(segment.c.key, segment.c.id, segment.c.fate).where(among)):
            ids[key] = row
            if fate == Fate.CONDEMNED or (fate == Fate.REPLACED and key in referred):
                condemned.append(key)
    if condemned:
        raise SegmentCondemned(condemned)
    return ids


def condemn(connection: Connection, keys: Iterable[str], at: str) -> Sequence[str]:
    """Condemn those of `keys` of which nothing was said yet; gives which."""
    return _say(connection, keys, Fate.CONDEMNED, at)


def note_replaced(connection: Connection, keys: Iterable[str], at: str) -> Sequence[str]:
    """Note that these were replaced in another life of the catalog, which this one never knew; gives which."""
    return _say(connection, keys, Fate.REPLACED, at)


def replace(connection: Connection, keys: Collection[str], at: str) -> None:
    """Let live segments go to which nothing refers any more."""
    table = schema.segment
    here = one_of(connection, table.c.key, keys)
    live = update(table).where(here, table.c.fate == Fate.LIVE.value)
    connection.execute(live.values(fate=Fate.REPLACED.value, fate_at=at))


def due(connection: Connection, fate: Fate, before: str, limit: int) -> Sequence[str]:
    """Keys that have this fate since before a time and whose bytes may be there; the oldest first."""
    table = schema.segment
    rows = select(table.c.key).where(table.c.fate == fate.value, table.c.fate_at != "", table.c.fate_at < before)
    return list(connection.scalars(rows.order_by(table.c.fate_at).limit(limit)))


def note_gone(connection: Connection, keys: Collection[str]) -> None:
    """Their bytes are gone."""
    table = schema.segment
    gone = update(table).where(one_of(connection, table.c.key, keys), table.c.fate != Fate.LIVE.value)
    connection.execute(gone.values(fate_at=""))


def _say(connection: Connection, keys: Iterable[str], fate: Fate, at: str) -> Sequence[str]:
    wanted = sorted(keys)
    tenant_ids = insertion.tenants(connection, {key.partition("/")[0] for key in wanted})
    rows = [
        {"tenant_id": tenant_ids[key.partition("/")[0]], "key": key, "fate": fate.value, "fate_at": at}
        for key in wanted
    ]
    done = insert_rows(connection, schema.segment, rows, ignoring=True, returning=("key",))
    return [key for (key,) in done]
