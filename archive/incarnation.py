"""Which life of the catalog this is, and the tide: what whoever collects or compacts must know before it removes bytes.

Bytes may go only when no catalog row refers to them and none ever will. A worker that was frozen since it put a segment
and commits it afterwards meets the segment's fate (`archive.fate`). What that row cannot tell is that the database was
made anew or restored from a backup: its rows are then of another day, and what they do not refer to may be what was
committed since. So each life has an id of its own, the keeper raises the tide all the time, and the archive has both in
a file of its own (`archive.tide`); a catalog that is behind it, or another one, is brought up by `sansfilm archive
reconcile`, which begins another life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection, case, insert, select, update

from archive import schema

_THE_ONE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """The life of a catalog, and its tide."""

    id: str
    tide: int


def begin(connection: Connection) -> None:
    """Begin the life of a catalog that was just made."""
    table = schema.incarnation
    connection.execute(insert(table).values({table.c.one: _THE_ONE, table.c.incarnation_id: str(uuid4())}))


def begin_anew(connection: Connection, *, above: int = -1) -> None:
    """Begin another life: the database was restored from a backup. The tide goes on, and is then over `above`."""
    table = schema.incarnation
    tide = case((table.c.tide <= above, above + 1), else_=table.c.tide)
    connection.execute(update(table).values(incarnation_id=str(uuid4()), tide=tide))


def read(connection: Connection) -> Incarnation:
    """The life and the tide as this transaction sees them."""
    table = schema.incarnation
    row = connection.execute(select(table.c.incarnation_id, table.c.tide)).one()
    return Incarnation(id=row[0], tide=row[1])


def raise_tide(connection: Connection) -> int:
    """Raise the tide by one; gives the new one. It counts when the transaction has ended."""
    table = schema.incarnation
    return int(connection.execute(update(table).values(tide=table.c.tide + 1).returning(table.c.tide)).scalar_one())
