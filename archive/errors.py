"""The databases' errors, mapped into the product's tree in one place. No message quotes a statement or its values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runtime.errors import Fatal, Misconfigured, OutOfSpace, Retryable, SansfilmError

MIGRATE: Final = "run: sansfilm catalog migrate"
_DAMAGED: Final = "the catalog is damaged; stop the worker and run: sansfilm archive rebuild"
_DISK_FULL: Final = "53100"
#: PostgreSQL's classes of faults that pass: connection, resources, rolled back, not in the needed state, an operator's
#: doing, the system's. 25: the session was ended for idling in a transaction, or the server is a standby now.
_PASSING: Final = ("08", "25", "40", "53", "55", "57", "58")
_NO_TABLE, _NO_COLUMN, _NO_PERMISSION = "42P01", "42703", "42501"
_DAMAGED_STATES: Final = ("XX001", "XX002")


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Map the database's errors into the product's tree.

    Raises:
        OutOfSpace: the disk is full.
        Retryable: busy, locked, deadlock, input/output error, connection lost; nothing was committed, or, where the
            connection was lost inside COMMIT, nobody knows: the same batch again gives Same.
        Misconfigured: there are no tables, or others.
        Fatal: the file is no catalog or is damaged; or the statement is refused, which is our bug.
    """
    try:
        yield
    except PoolTimeout:
        raise Retryable("the catalog is not available: all connections are in use") from None
    except DBAPIError as error:
        mapped = _mapped(error)
        if mapped is None:
            raise
        raise mapped from None


def _mapped(error: DBAPIError) -> SansfilmError | None:
    if hasattr(error.orig, "sqlstate"):
        return _of_postgres(error)
    return _of_sqlite(error)


def _of_sqlite(error: DBAPIError) -> SansfilmError | None:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, OperationalError):
        if code == sqlite3.SQLITE_FULL:
            return OutOfSpace("the catalog's disk is full")
        return Retryable(f"the catalog is not available: {_name_of(error)}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Fatal(_DAMAGED)
    return None


def _of_postgres(error: DBAPIError) -> SansfilmError:
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == _DISK_FULL:
        return OutOfSpace("the catalog's disk is full")
    if state in (_NO_TABLE, _NO_COLUMN):
        return Misconfigured(f"the catalog's database has not the tables of this program; {MIGRATE}")
    if state == _NO_PERMISSION:
        return Misconfigured("the catalog's database refuses this user: it may not read or write the tables")
    if state in _DAMAGED_STATES:
        return Fatal("PostgreSQL says that the catalog is damaged; restore it from its backup")
    if error.connection_invalidated or state[:2] in _PASSING or (not state and _lost(error)):
        return Retryable(f"the catalog is not available: {_name_of(error)}")
    return Fatal(f"the catalog refused a statement, which is an error of this program: {_name_of(error)} {state}")


def _lost(error: DBAPIError) -> bool:
    return isinstance(error, OperationalError | InterfaceError)


def _name_of(error: DBAPIError) -> str:
    """The error's symbolic name; its text would quote the statement's values."""
    return str(getattr(error.orig, "sqlite_errorname", type(error.orig).__name__))
