"""Statements that each database words differently: the one place where SQLite and PostgreSQL differ inside one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

#: Rows in one statement: bounded by SQLite's 32,766 parameters at the width of the widest table.
ROWS_PER_STATEMENT: Final = 500
_HOLD: Final = text(
    "SELECT pg_advisory_xact_lock(hashtextextended(one, 0)) FROM (SELECT unnest(:names) AS one ORDER BY 1) AS ordered"
).bindparams(bindparam("names", type_=ARRAY(Text)))


def is_postgres(connection: Connection) -> bool:
    """Whether other processes may write at the same time."""
    return connection.dialect.name == "postgresql"


def insert_ignoring(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """INSERT that leaves out rows whose key is there already (ON CONFLICT DO NOTHING).

    On PostgreSQL it waits for whoever is inserting such a key at this moment; the next statement sees their row.
    """
    if is_postgres(connection):
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    ignoring: bool = False,
    returning: Sequence[str] = (),
) -> Sequence[Any]:
    """Insert rows that all have the same columns, in their order; gives columns of those that were inserted.

    On PostgreSQL a column is one array, so that the statement is the same for every number of rows, and short: the
    driver reads through its text each time, and the server keeps its plan.
    """
    if not rows:
        return []
    names = tuple(rows[0])
    if is_postgres(connection):
        arrays = {f"all_{name}": [row[name] for row in rows] for name in names}
        done = connection.execute(_insert_arrays(table, names, ignoring, tuple(returning)), arrays)
    else:
        done = connection.execute(_finished(sqlite.insert(table), table, ignoring, returning), rows)
    return done.all() if returning else []


@lru_cache(maxsize=64)  # to make it costs more than to send it
def _insert_arrays(table: Table, names: Sequence[str], ignoring: bool, returning: Sequence[str]) -> Any:
    arrays = [bindparam(f"all_{name}", type_=ARRAY(_element(table.c[name]))) for name in names]
    lines = func.unnest(*arrays).table_valued(*names).render_derived()
    into = postgresql.insert(table).from_select(names, select(*(lines.c[name] for name in names)))
    return _finished(into, table, ignoring, returning)


def _finished(into: Any, table: Table, ignoring: bool, returning: Sequence[str]) -> Any:
    if ignoring:
        into = into.on_conflict_do_nothing()
    return into.returning(*(table.c[name] for name in returning)) if returning else into


def _element(column: Column[Any]) -> BigInteger | Text:
    return BigInteger() if isinstance(column.type, BigInteger) else Text()


def insert_adding(connection: Connection, table: Table, column: str) -> sqlite.Insert | postgresql.Insert:
    """INSERT that adds `column` to the row whose primary key is there already."""
    statement: Any = (postgresql if is_postgres(connection) else sqlite).insert(table)
    added = {column: table.c[column] + statement.excluded[column]}
    upsert: sqlite.Insert | postgresql.Insert = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_=added
    )
    return upsert


def insert_replacing(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """INSERT that takes the place of the row whose primary key is there already."""
    statement: Any = (postgresql if is_postgres(connection) else sqlite).insert(table)
    keys = list(table.primary_key.columns)
    others = {column.name: statement.excluded[column.name] for column in table.columns if column not in set(keys)}
    upsert: sqlite.Insert | postgresql.Insert = statement.on_conflict_do_update(index_elements=keys, set_=others)
    return upsert


def one_of(connection: Connection, column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """`column` is one of `values`; on PostgreSQL one array, so that the statement is the same for every number."""
    if not is_postgres(connection):
        return column.in_(values)
    return column == any_(bindparam(None, list(values), type_=ARRAY(_element(column))))


def hold_names(connection: Connection, names: Iterable[str]) -> None:
    """Keep other transactions from passing here with one of `names` until this one ends, in a fixed order.

    For rows whose key nothing makes unique. SQLite has one writer and needs nothing.
    """
    if is_postgres(connection) and (wanted := sorted(set(names))):
        connection.execute(_HOLD, {"names": wanted})


def stay_awake(connection: Connection) -> None:
    """Say that this transaction is alive, before work outside of it: a session that idles in one is ended."""
    if is_postgres(connection):
        connection.exec_driver_sql("SELECT 1")
