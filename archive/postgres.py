"""PostgreSQL under the catalog: opening it, and bounds on every wait.

Many processes write at once, READ COMMITTED: what their transactions do to each other is in `archive/__init__.py`. No
wait is without end: the server gives up a statement, a lock and a session that idles inside a transaction; this side
gives up a server that no longer answers, which one that is stopped or cut off cannot say itself. A lost connection is
Retryable, and the next call opens another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, create_engine

from archive import schema
from archive.errors import mapped_errors
from archive.revisions import check_revision
from runtime.errors import Misconfigured, Retryable, SansfilmError
from runtime.settings import CommonSettings

READER_CONNECTIONS_MAX: Final = 16
_DIALECT: Final = "postgresql+psycopg://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long anything may take, in seconds."""

    statement_s: float = 60.0
    #: A row or name that another transaction holds.
    lock_s: float = 20.0
    #: A transaction in which nothing happens: its process is frozen or gone. What it held is free afterwards.
    idle_in_transaction_s: float = 120.0
    connect_s: float = 10.0
    #: How much later than the server this side gives up a statement.
    patience_s: float = 5.0


def bounds_of(settings: CommonSettings) -> Bounds:
    """The bounds that the settings name."""
    return Bounds(
        statement_s=settings.catalog_statement_timeout_s,
        lock_s=settings.catalog_lock_timeout_s,
        idle_in_transaction_s=settings.catalog_idle_timeout_s,
    )


class _BoundedConnection(psycopg.Connection[Any]):
    """A connection that does not wait forever for a server that has stopped answering."""

    answer_timeout_s: float = 65.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See `psycopg.Connection.wait`; a connection without an answer is given up."""
        try:
            return super().wait(gen, interval, self.answer_timeout_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if type(error).__name__ == "_WaitTimeout":
                self.pgconn.finish()
                raise psycopg.OperationalError("the server does not answer") from None
            raise


# ---- engines -------------------------------------------------------------------------------------------------------


def writer_engine(url: str, bounds: Bounds) -> Engine:
    """An engine for the one thread of a process that commits, and for the lanes that keep their attempts beside it."""
    settings = {
        **_timeouts(bounds),
        # Every statement of a commit looks up keys. Statistics that are behind a fast fill must not tempt the planner
        # to read a table of a billion rows.
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }
    return _engine(url, bounds, settings, pool_size=1, max_overflow=3)


def reader_engine(url: str, bounds: Bounds) -> Engine:
    """An engine whose sessions cannot write; each statement sees one state of the catalog."""
    settings = {
        **_timeouts(bounds),
        "default_transaction_read_only": "on",
        # Which index is best depends on what is searched for.
        "plan_cache_mode": "force_custom_plan",
    }
    return _engine(
        url, bounds, settings, pool_size=4, max_overflow=READER_CONNECTIONS_MAX - 4, isolation_level="AUTOCOMMIT"
    )


def migration_engine(url: str, bounds: Bounds) -> Engine:
    """An engine to change tables with: a statement may take long, a lock may not."""
    waits = Bounds(
        statement_s=86_400, lock_s=bounds.lock_s, idle_in_transaction_s=max(60.0, bounds.idle_in_transaction_s)
    )
    return _engine(url, waits, _timeouts(waits), pool_size=1, max_overflow=0)


def checked(engine: Engine, url: str, *, since: int | None = schema.REVISION) -> Engine:
    """`engine`, once a session was opened and the tables were found to be ours, or not looked at (None).

    Raises:
        Misconfigured: the server is not reachable, refuses us, has not the database, or not the tables.
        Retryable: the server is just starting, or has no place for another session.
    """
    try:
        with mapped_errors(), _first_session(engine, url) as connection:
            if since is not None:
                check_revision(connection, since=since)
    except BaseException:
        engine.dispose()
        raise
    return engine


def place_of(url: str) -> str:
    """Where `url` leads, for messages: host, port and database; never user or password.

    Raises:
        Misconfigured: it is no URL of a PostgreSQL database.
    """
    try:
        parts = conninfo_to_dict(url) if url.startswith(("postgresql://", "postgres://")) else None
    except psycopg.Error:
        parts = None
    if parts is None:
        raise Misconfigured("catalog_url is wrong: it must be postgresql://user:password@host:port/database") from None
    host, port = parts.get("host", "localhost"), parts.get("port", 5432)
    return f"{host}:{port}/{parts.get('dbname', '')}"


def _engine(url: str, bounds: Bounds, settings: dict[str, str], **pool: Any) -> Engine:
    place_of(url)
    assignments = "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())

    def connect() -> psycopg.Connection[Any]:
        connection = _BoundedConnection.connect(
            url, connect_timeout=max(2, round(bounds.connect_s)), application_name="sansfilm",
            keepalives_idle=10, keepalives_interval=5, keepalives_count=3,
        )  # fmt: skip
        connection.answer_timeout_s = bounds.statement_s + bounds.patience_s
        connection.execute(assignments.encode())
        connection.commit()
        return connection

    # The dialect's own URL is empty: the true one, with its password, is in no engine, log or error.
    return create_engine(
        _DIALECT, creator=connect, hide_parameters=True, pool_pre_ping=True, pool_timeout=bounds.lock_s, **pool
    )


def _timeouts(bounds: Bounds) -> dict[str, str]:
    return {
        "statement_timeout": f"{round(bounds.statement_s * 1000)}ms",
        "lock_timeout": f"{round(bounds.lock_s * 1000)}ms",
        "idle_in_transaction_session_timeout": f"{round(bounds.idle_in_transaction_s * 1000)}ms",
        "synchronous_commit": "on",
    }


def _first_session(engine: Engine, url: str) -> Connection:
    try:
        return engine.connect()
    except Exception as error:
        if isinstance(getattr(error, "orig", None), psycopg.OperationalError):
            raise _refusal(str(getattr(error, "orig", "")), url) from None
        raise


def _refusal(said: str, url: str) -> SansfilmError:
    """What libpq says, which tells the cause in words only, as an error of ours."""
    if any(words in said for words in ("too many", "starting up", "shutting down", "recovery")):
        return Retryable(f"PostgreSQL at {place_of(url)} is not ready for us yet")
    return Misconfigured(_why(said, place_of(url)))


def _why(said: str, place: str) -> str:
    if "password authentication failed" in said or "no password supplied" in said:
        return f"PostgreSQL at {place} refuses the user or the password: see SANSFILM_CATALOG_URL"
    if "does not exist" in said and "database" in said:
        return f"PostgreSQL at {place} has no such database: make it, then run: sansfilm catalog migrate"
    if "pg_hba.conf" in said or "does not exist" in said or "permission" in said:
        return f"PostgreSQL at {place} does not let this user in: see SANSFILM_CATALOG_URL and the server's pg_hba.conf"
    return f"PostgreSQL at {place} is not reachable: is it running, and is SANSFILM_CATALOG_URL right?"
