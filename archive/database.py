"""The SQLite file under the catalog: opening and transactions. PostgreSQL's are in `archive.postgres`.

A SQLite catalog is a *generation*, ``catalog-<uuid7>.sqlite``, and a symbolic link ``catalog.sqlite`` to it. SQLite
follows the link, so every generation has its own write-ahead log, and replacing the link swaps catalogs atomically
while readers still hold the old one. One process writes at a time (a POSIX lock beside the link, released by its
death), on one connection, with ``synchronous=FULL``: a commit that returned is on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import sqlite3
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, insert

from archive import incarnation, schema
from archive.errors import mapped_errors
from runtime.clock import Clock
from runtime.errors import Misconfigured
from segments.disk import SystemDisk

BUSY_TIMEOUT_S: Final = 10.0
READER_CONNECTIONS_MAX: Final = 32


# ---- opening -------------------------------------------------------------------------------------------------------


def generation_path(link: Path, clock: Clock) -> Path:
    """A new file's name beside `link`, for a catalog that is not in use yet."""
    return link.with_name(f"{link.stem}-{clock.new_id()}{link.suffix}")


def create_file(path: Path) -> None:
    """Make an empty catalog at `path`, complete on the disk."""
    engine = writer_engine(path)
    with mapped_errors(), engine.begin() as connection:
        schema.metadata.create_all(connection)
        connection.execute(insert(schema.catalog_revision).values(revision=schema.REVISION))
        incarnation.begin(connection)
        _tell_planner(connection)
    engine.dispose()


def _tell_planner(connection: Connection) -> None:
    """Tell SQLite how selective the indexes are in a large archive: by itself it takes a tenant for ten studies, and
    would look through all of them rather than use an index on what was asked for (sqlite.org/fileformat2, 2.6.3)."""
    connection.exec_driver_sql("ANALYZE sqlite_schema")
    for table, index, statistics in _SELECTIVITY:
        connection.exec_driver_sql("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", (table, index, statistics))


#: Rows of an index, then rows that share its first column, its first two, ...
_SELECTIVITY: Final = (
    ("study", "study_by_date", "2000000 2000000 1000 2 1"),
    ("study", "study_by_patient_id", "2000000 2000000 4"),
    ("study", "study_by_patient_name", "2000000 2000000 4"),
    ("study", "study_by_accession", "2000000 2000000 1"),
    ("study", "sqlite_autoindex_study_1", "2000000 2000000 1"),
    ("series", "series_by_uid", "10000000 1"),
    ("series", "series_by_modality", "10000000 1000000 2"),
    ("series", "sqlite_autoindex_series_1", "10000000 5 1"),
    ("instance", "instance_in_series", "1000000000 100 2 1"),
    ("instance", "sqlite_autoindex_instance_1", "1000000000 500 1"),
    ("version", "sqlite_autoindex_version_1", "1000000000 1 1"),
)


def point_link(link: Path, target: Path) -> None:
    """Make `link` lead to `target`, atomically and durably; what it led to before is removed."""
    before = link.resolve() if link.exists() else None
    beside = link.with_name(f"{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target.name)
    beside.replace(link)
    SystemDisk().sync_folder(link.parent)
    if before is not None and before != target.resolve():
        remove_file(before)


def remove_file(path: Path) -> None:
    """Remove a catalog's file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sweep_generations(link: Path) -> None:
    """Remove generations that nothing leads to: a first start or a rebuild was cut short. Under the writer's lock."""
    current = link.resolve() if link.exists() else None
    for path in link.parent.glob(f"{link.stem}-*{link.suffix}"):
        if path.resolve() != current:
            remove_file(path)


def lock_writer(link: Path) -> IO[bytes]:
    """The right to write the catalog, until the file given is closed or the process ends.

    Raises:
        Misconfigured: another process writes this catalog.
        OutOfSpace, Retryable: its folder cannot be made.
    """
    SystemDisk().make_folder(link.parent)
    held = link.with_name(f"{link.name}.lock").open("ab")
    try:
        # A POSIX lock: children made by fork do not keep it alive after this process is gone.
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise Misconfigured("another process is writing this catalog; stop the worker first") from None
    return held


def writer_engine(path: Path) -> Engine:
    """An engine with one connection; a transaction takes the write lock when it begins."""
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, connect_args=_ARGUMENTS)
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reader_engine(path: Path) -> Engine:
    """An engine whose connections cannot write; a transaction sees one state of the catalog."""
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    engine = create_engine(
        url, pool_size=8, max_overflow=READER_CONNECTIONS_MAX - 8, pool_timeout=BUSY_TIMEOUT_S, connect_args=_ARGUMENTS
    )
    event.listen(engine, "connect", _prepare_reader)
    event.listen(engine, "begin", _begin)
    return engine


_ARGUMENTS: dict[str, Any] = {"check_same_thread": False, "timeout": BUSY_TIMEOUT_S}


def _prepare_writer(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "case_sensitive_like=ON",
        "cache_size=-65536",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_reader(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    for pragma in ("query_only=ON", "case_sensitive_like=ON", "cache_size=-16384"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def integrity_error(path: Path) -> str:
    """What SQLite finds wrong with a catalog's file; empty if nothing."""
    engine = reader_engine(path)
    try:
        with mapped_errors(), engine.connect() as connection:
            answer = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        return "" if answer == "ok" else answer
    finally:
        engine.dispose()
