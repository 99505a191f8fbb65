"""The catalog on SQLite."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive import database, outbox, sql_catalog
from archive.catalog import Catalog
from archive.sql_catalog import SqlCatalog, open_catalog
from archive.sql_reader import SqlCatalogReader, open_reader
from runtime.errors import Fatal, Misconfigured, OutOfSpace, Retryable
from segments.disk import SystemDisk
from tests.archive.contract_catalog import CatalogContract, commit
from tests.archive.samples import NEW, SCOPE, TENANT, StepClock, never_equal, not_noted, placed, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog" / "catalog.sqlite"


@pytest.fixture
def catalog(path: Path) -> Iterator[SqlCatalog]:
    opened = open_catalog(path, clock=StepClock())
    yield opened
    opened.close()


@pytest.fixture
def reader(path: Path) -> Iterator[SqlCatalogReader]:
    opened = open_reader(path)
    yield opened
    opened.close()


@pytest.fixture
def reopened(path: Path, catalog: SqlCatalog) -> Iterator[Callable[[], Catalog]]:
    opened: list[SqlCatalog] = []

    def reopen() -> Catalog:
        catalog.close()
        opened.append(open_catalog(path, clock=StepClock()))
        return opened[-1]

    yield reopen
    for one in opened:
        one.close()


class TestSqliteCatalog(CatalogContract):
    """The contract on SQLite."""


def test_no_file_is_an_empty_archive(reader: SqlCatalogReader, path: Path) -> None:
    assert list(reader.instances(SCOPE, "1.2")) == []
    assert reader.counters(TENANT)["instances"] == 0
    assert (reader.versions(SCOPE, "1"), reader.trace(SCOPE, "1"), reader.conflicts(SCOPE)) == ([], [], [])
    assert list(reader.placed()) == []
    assert not path.exists(), "a reader makes nothing"


def test_a_reader_cannot_write(catalog: SqlCatalog, reader: SqlCatalogReader) -> None:
    engine = reader._engine()
    assert engine is not None
    with engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("INSERT INTO tenant (name) VALUES ('x')")


def test_commits_are_synced_and_there_is_one_writing_connection(catalog: SqlCatalog) -> None:
    with catalog._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    assert catalog._engine.pool.size() == 1  # type: ignore[attr-defined]


def test_a_second_process_may_not_write(catalog: SqlCatalog, path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from archive.sql_catalog import open_catalog\n"
        "from runtime.errors import Misconfigured\n"
        "try: open_catalog(Path(sys.argv[1]))\n"
        "except Misconfigured as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "another process is writing this catalog" in done.stdout


def test_what_a_killed_first_start_left_is_swept(path: Path) -> None:
    path.parent.mkdir(parents=True)
    half = path.with_name("catalog-half.sqlite")
    half.write_bytes(b"half")
    opened = open_catalog(path, clock=StepClock())
    assert not half.exists()
    assert commit(opened, record("1.1")) == [NEW]
    opened.close()


def test_a_catalog_of_another_revision_is_not_touched(catalog: SqlCatalog, path: Path) -> None:
    catalog.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE catalog_revision SET revision = 99")
    connection.close()
    with pytest.raises(Misconfigured, match="archive rebuild"):
        open_catalog(path)
    with pytest.raises(Misconfigured, match="archive rebuild"):
        open_reader(path).counters(TENANT)


def test_a_damaged_file_is_fatal_and_says_what_to_do(catalog: SqlCatalog, path: Path) -> None:
    catalog.close()
    os.truncate(path, 0)
    path.write_bytes(b"this is no database " * 100)
    with pytest.raises(Fatal, match="sansfilm archive rebuild"):
        open_reader(path).counters(TENANT)


def test_a_busy_database_is_retryable_and_commits_nothing(
    path: Path, reader: SqlCatalogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sql_catalog.writer_engine.__globals__["_ARGUMENTS"], "timeout", 0.01)
    catalog = open_catalog(path, clock=StepClock())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Retryable, match="SQLITE_BUSY"):
        commit(catalog, record("1.1"))
    other.execute("ROLLBACK")
    other.close()
    assert list(reader.instances(SCOPE, "1.2")) == []
    assert commit(catalog, record("1.1")) == [NEW]
    catalog.close()


def test_the_outbox_is_bounded(catalog: SqlCatalog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "OUTBOX_ROWS_MAX", 3)
    for number in range(5):
        commit(catalog, record(f"1.{number}"))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT id FROM outbox ORDER BY id").fetchall() == [(3,), (4,), (5,)]
    connection.close()


def test_the_cost_of_a_commit_does_not_grow_with_the_rows(catalog: SqlCatalog, path: Path) -> None:
    """No statement of a commit scans a table: SQLite's own count of full-scan steps stays nothing."""
    for number in range(4):
        commit(catalog, *(record(f"{number}.{one}", study=f"1.{number}") for one in range(100)))
    plans: list[str] = []
    connection = sqlite3.connect(path)

    def explain(statement: str) -> None:
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            plans.extend(f"{step[3]}: {statement[:90]}" for step in steps)

    with catalog._engine.connect() as writing:
        driver = writing.connection.driver_connection
        assert driver is not None
        driver.set_trace_callback(explain)
    commit(catalog, record("9.1"), record("0.1", "b", study="1.0"), record("0.2", study="1.0"))
    assert len([plan for plan in plans if plan.startswith("SEARCH")]) > 10, "something was explained"
    assert [plan for plan in plans if plan.startswith("SCAN") and "CONSTANT ROW" not in plan] == []
    assert connection.execute("SELECT count(*) FROM instance").fetchone() == (401,)
    connection.close()


def test_a_nul_in_an_attribute_is_no_obstacle(catalog: SqlCatalog, reader: SqlCatalogReader) -> None:
    odd = record("1.1", calling_ae="A\0E")
    catalog.commit_batch([placed(odd)], equal=never_equal, on_conflict=not_noted)
    (seen,) = reader.instances(SCOPE, "1.2")
    assert seen.record == odd


def test_a_new_catalog_is_durable_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder's entry, and the link to it: after a power cut a missing catalog would look like an empty archive."""
    synced: list[tuple[Path, bool]] = []

    class Watched(SystemDisk):
        def sync_folder(self, path: Path) -> None:
            super().sync_folder(path)
            synced.append((path, (tmp_path / "data" / "catalog" / "catalog.sqlite").is_symlink()))

    monkeypatch.setattr(database, "SystemDisk", Watched)
    open_catalog(tmp_path / "data" / "catalog" / "catalog.sqlite", clock=StepClock()).close()
    assert (tmp_path, False) in synced
    assert (tmp_path / "data", False) in synced
    assert synced[-1] == (tmp_path / "data" / "catalog", True)


def test_a_full_disk_is_out_of_space_and_commits_nothing(catalog: SqlCatalog, reader: SqlCatalogReader) -> None:
    with catalog._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutOfSpace):
        commit(catalog, *(record(f"1.{number}") for number in range(500)))
    assert reader.counters(TENANT)["instances"] == 0
    with catalog._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert commit(catalog, record("1.1")) == [NEW]
