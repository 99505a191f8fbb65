"""Which life of the catalog this is, and the tide: what whoever collects or compacts must know before it removes bytes.

Bytes may go only when no catalog row refers to them and none ever will. Two things can make yesterday's answer wrong:

* The database was made anew or restored from a backup. Its rows are then of another day than what was found out before.
  So each life has an id of its own: whoever restores a database gives it a new one (`begin_anew`), and a collector that
  meets another id than the one it worked with forgets what it found.
* A worker that was frozen since before the search still holds a segment that it put, and commits it afterwards. So a
  collector first raises the tide, in a transaction. A worker notes the tide before it puts and will compare it, in its
  commit, with the one then: if it rose in between, the segment may be on the list and is put again under a new key.

The keeper that collects is not written yet; nothing compares tides today.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from archive import schema

_THE_ONE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """The life of a catalog, and how often bytes were looked for that nothing refers to."""

    id: str
    tide: int


def begin(connection: Connection) -> None:
    """Begin the life of a catalog that was just made."""
    table = schema.incarnation
    connection.execute(insert(table).values({table.c.one: _THE_ONE, table.c.incarnation_id: str(uuid4())}))


def begin_anew(connection: Connection) -> None:
    """Begin another life: the database was restored from a backup. The tide goes on."""
    connection.execute(update(schema.incarnation).values(incarnation_id=str(uuid4())))


def read(connection: Connection) -> Incarnation:
    """The life and the tide as this transaction sees them."""
    table = schema.incarnation
    row = connection.execute(select(table.c.incarnation_id, table.c.tide)).one()
    return Incarnation(id=row[0], tide=row[1])


def raise_tide(connection: Connection) -> int:
    """Raise the tide by one; gives the new one. It counts when the transaction has ended."""
    table = schema.incarnation
    return int(connection.execute(update(table).values(tide=table.c.tide + 1).returning(table.c.tide)).scalar_one())
