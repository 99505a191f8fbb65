"""Revisions of the tables: an upgrade makes what the definitions say, on both databases; older and newer ones."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from archive import incarnation, revisions, schema
from archive.database import writer_engine
from archive.postgres import Bounds, migration_engine
from archive.revisions import migrate, revision_of
from archive.sql_catalog import open_catalog, open_postgres_catalog
from archive.sql_reader import open_postgres_reader, open_reader
from runtime.errors import Misconfigured
from tests.archive.contract_catalog import commit
from tests.archive.samples import NEW, SAME, SCOPE, TENANT, StepClock, record


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on a database without tables."""
    if request.param == "sqlite":
        engine = writer_engine(tmp_path / "catalog.sqlite")
    else:
        engine = migration_engine(request.getfixturevalue("empty_database"), Bounds())
    yield engine
    engine.dispose()


def differences(engine: Engine) -> list[Any]:
    """What Alembic would change to make the tables those of the definitions."""

    def is_ours(_: object, name: str | None, kind: str, *others: object) -> bool:
        return (kind, name) != ("index", schema.STUDY_BY_TEXT)  # made where pg_trgm is there

    # What Alembic reads back of an empty text as a default is not what it wrote, on SQLite.
    defaults = engine.dialect.name == "postgresql"
    options = {"compare_type": True, "compare_server_default": defaults, "include_object": is_ours}
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata))


def test_an_upgrade_from_nothing_makes_the_tables_as_defined(empty: Engine) -> None:
    assert migrate(empty) == (0, schema.REVISION)
    assert differences(empty) == []
    with empty.connect() as connection:
        assert incarnation.read(connection).tide == 0
    assert migrate(empty) == (schema.REVISION, schema.REVISION)


def test_a_difference_would_be_seen(empty: Engine) -> None:
    migrate(empty)
    with empty.begin() as connection:
        connection.execute(text("ALTER TABLE study ADD COLUMN extra TEXT"))
        connection.execute(text("DROP INDEX study_by_date"))
    assert sorted(change[0] for change in differences(empty)) == ["add_index", "remove_column"]


def test_a_new_sqlite_catalog_is_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    open_catalog(path, clock=StepClock()).close()
    engine = writer_engine(path)
    assert differences(engine) == []
    with engine.connect() as connection:
        assert (revision_of(connection), incarnation.read(connection).tide) == (schema.REVISION, 0)
    engine.dispose()


_TO_REVISION_1 = """
DROP TABLE incarnation; DROP TABLE attempt; DROP TABLE study_unstable;
DROP INDEX segment_fated; DROP INDEX segment_unsettled; DROP INDEX version_in_segment;
ALTER TABLE segment DROP COLUMN fate; ALTER TABLE segment DROP COLUMN fate_at; ALTER TABLE segment DROP COLUMN settled;
UPDATE catalog_revision SET revision = 1;
"""


def test_a_sqlite_catalog_of_revision_1_is_brought_on_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with closing(open_catalog(path, clock=StepClock())) as catalog:
        commit(catalog, record("1.1"))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_TO_REVISION_1)
    with closing(open_reader(path)) as reader:
        assert reader.counters(TENANT)["instances"] == 1, "readers need nothing of revisions 2 and 3"
        with closing(open_catalog(path, clock=StepClock())) as catalog:
            assert commit(catalog, record("1.1"), record("1.2")) == [SAME, NEW]
            catalog.save_attempts("a", "{}")
        assert reader.counters(TENANT)["instances"] == 2
    engine = writer_engine(path)
    assert differences(engine) == []
    engine.dispose()


def test_two_migrations_at_once_are_harmless(empty_database: str) -> None:
    engines = [migration_engine(empty_database, Bounds()) for _ in range(3)]
    done: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda engine=engine: done.append(migrate(engine))) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [(before, schema.REVISION) for before in (0, schema.REVISION, schema.REVISION)]
    for engine in engines:
        engine.dispose()


def test_a_migration_that_fails_changes_nothing(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = revisions._steps()

    def fails() -> None:
        raise RuntimeError("the second one fails")

    monkeypatch.setattr(steps[1].module, "upgrade", fails)
    monkeypatch.setattr(revisions, "_steps", lambda: steps)
    with pytest.raises(RuntimeError):
        migrate(empty)
    assert inspect(empty).get_table_names() == []


def test_a_catalog_without_tables_is_refused_with_the_command(empty_database: str) -> None:
    for opening in (open_postgres_catalog, open_postgres_reader):
        with pytest.raises(Misconfigured, match=r"has no tables yet; run: sansfilm catalog migrate$"):
            opening(empty_database)


@pytest.mark.parametrize(
    ("revision", "writer_says", "reader_says"),
    [
        (schema.REVISION + 1, "", ""),
        (schema.REVISION + 2, "update sansfilm", "update sansfilm"),
        (schema.REVISION - 1, "run: sansfilm catalog migrate", ""),
        (schema.READABLE_REVISION - 1, "run: sansfilm catalog migrate", "run: sansfilm catalog migrate"),
    ],
)
def test_what_this_program_works_with(catalog_url: str, revision: int, writer_says: str, reader_says: str) -> None:
    """The next revision only adds: what it brings is not noticed."""
    with psycopg.connect(catalog_url) as connection:
        connection.execute("UPDATE catalog_revision SET revision = %s", [revision])
        connection.execute("ALTER TABLE study ADD COLUMN of_tomorrow TEXT NOT NULL DEFAULT ''")
        connection.execute("CREATE TABLE tomorrow (id bigint)")
    for opening, says in ((open_postgres_catalog, writer_says), (open_postgres_reader, reader_says)):
        if says:
            with pytest.raises(Misconfigured, match=says):
                opening(catalog_url)
        else:
            opening(catalog_url).close()
    if not writer_says:
        with closing(open_postgres_catalog(catalog_url)) as catalog:
            assert commit(catalog, record("1.1"), record("1.1")) == [NEW, SAME]


def test_workers_and_readers_that_run_do_not_notice_the_next_revision(catalog_url: str) -> None:
    """Their statements are prepared; a column that comes meanwhile is in none of them."""
    with closing(open_postgres_catalog(catalog_url)) as catalog, closing(open_postgres_reader(catalog_url)) as reader:
        for number in range(8):
            commit(catalog, record(f"1.{number}"), record("1.0", f"{number}"))
            assert len(list(reader.instances(SCOPE, "1.2"))) == number + 1
        with psycopg.connect(catalog_url) as connection:
            for table in ("study", "series", "instance", "version", "sop", "segment", "counter", "tenant"):
                connection.execute(f"ALTER TABLE {table} ADD COLUMN of_tomorrow TEXT NOT NULL DEFAULT ''".encode())
        assert commit(catalog, record("1.0"), record("1.8")) == [SAME, NEW]
        assert len(list(reader.instances(SCOPE, "1.2"))) == 9


def test_a_server_without_trigrams_is_migrated_too(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = revisions._steps()
    monkeypatch.setattr(steps[1].module, "_has_trigrams", lambda: False)
    monkeypatch.setattr(revisions, "_steps", lambda: steps)
    engine = migration_engine(empty_database, Bounds())
    migrate(engine)
    assert schema.STUDY_BY_TEXT not in {index["name"] for index in inspect(engine).get_indexes("study")}
    engine.dispose()


def test_opening_does_not_load_alembic(tmp_path: Path) -> None:
    """It takes longer to load than a catalog takes to open; nor does an embedded catalog load PostgreSQL's driver."""
    program = (
        "import sys; from pathlib import Path; from archive.sql_catalog import open_catalog\n"
        "from archive.sql_reader import open_reader\n"
        "open_catalog(Path(sys.argv[1])).close()\n"
        "print([name for name in ('alembic', 'psycopg') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "catalog.sqlite")]
    for _ in range(2):
        assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "[]\n"


def test_the_life_and_the_tide(empty: Engine) -> None:
    migrate(empty)
    with empty.begin() as connection:
        first = incarnation.read(connection)
        assert [incarnation.raise_tide(connection) for _ in range(2)] == [1, 2]
    with empty.begin() as connection:
        assert incarnation.read(connection) == incarnation.Incarnation(id=first.id, tide=2)
        incarnation.begin_anew(connection)
    with empty.connect() as connection:
        anew = incarnation.read(connection)
    assert (anew.tide, anew.id == first.id) == (2, False)
