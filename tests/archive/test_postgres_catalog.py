"""The catalog on PostgreSQL."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import InternalError

from archive import outbox
from archive.catalog import Catalog
from archive.sql_catalog import SqlCatalog, open_postgres_catalog
from archive.sql_reader import SqlCatalogReader, open_postgres_reader
from region.postgres import PostgresServer
from runtime.errors import Fatal, Misconfigured
from schemas.record import InstanceRecord, PatientAttributes
from tests.archive.contract_catalog import CatalogContract, commit
from tests.archive.samples import NEW, TENANT, StepClock, record


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[SqlCatalog]:
    opened = open_postgres_catalog(catalog_url, clock=StepClock())
    yield opened
    opened.close()


@pytest.fixture
def reader(catalog_url: str) -> Iterator[SqlCatalogReader]:
    opened = open_postgres_reader(catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def reopened(catalog_url: str, catalog: SqlCatalog) -> Iterator[Callable[[], Catalog]]:
    opened: list[SqlCatalog] = []

    def reopen() -> Catalog:
        catalog.close()
        opened.append(open_postgres_catalog(catalog_url, clock=StepClock()))
        return opened[-1]

    yield reopen
    for one in opened:
        one.close()


class TestPostgresCatalog(CatalogContract):
    """The contract on PostgreSQL."""


def test_a_reader_cannot_write(reader: SqlCatalogReader) -> None:
    engine = reader._engine()
    assert engine is not None
    with engine.connect() as connection, pytest.raises(InternalError, match="read-only"):
        connection.exec_driver_sql("INSERT INTO tenant (name) VALUES ('x')")


def test_a_commit_is_synced_and_every_wait_is_bounded(catalog: SqlCatalog, reader: SqlCatalogReader) -> None:
    with catalog._engine.connect() as connection:
        shown = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in (
            "synchronous_commit", "fsync", "transaction_isolation", "statement_timeout", "lock_timeout",
            "idle_in_transaction_session_timeout",
        )}  # fmt: skip
    assert list(shown.values()) == ["on", "on", "read committed", "1min", "20s", "2min"]
    engine = reader._engine()
    assert engine is not None
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "1min"


def test_every_text_compares_by_code_point(catalog: SqlCatalog) -> None:
    others = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM 'C'"
    )
    with catalog._engine.connect() as connection:
        assert connection.exec_driver_sql(others).all() == []


def test_nothing_that_is_to_be_published_is_dropped(
    catalog: SqlCatalog, catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "OUTBOX_ROWS_MAX", 3)
    for number in range(5):
        commit(catalog, record(f"1.{number}"))
    with psycopg.connect(catalog_url) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (5,)


def test_a_server_that_is_away_at_the_start() -> None:
    url = "postgresql://ops:secret@127.0.0.1:1/catalog"
    for opening in (open_postgres_catalog, open_postgres_reader):
        with pytest.raises(Misconfigured) as raised:
            opening(url)
        assert str(raised.value) == (
            "PostgreSQL at 127.0.0.1:1/catalog is not reachable: is it running, and is SANSFILM_CATALOG_URL right?"
        )


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "postgresql://a:secret@[b", "nonsense secret", "postgresql:x"])
def test_a_url_of_something_else(url: str) -> None:
    with pytest.raises(Misconfigured, match="catalog_url is wrong: it must be postgresql://") as raised:
        open_postgres_catalog(url)
    assert "secret" not in str(raised.value)


def test_a_wrong_password_and_a_wrong_user(catalog_url: str) -> None:
    before, _, after = catalog_url.partition("@")
    for user in ("sansfilm", "nobody"):
        with pytest.raises(Misconfigured, match="refuses the user or the password: see SANSFILM_CATALOG_URL") as raised:
            open_postgres_reader(f"postgresql://{user}:wrong@{after}")
        assert "wrong" not in str(raised.value)
    assert before.split(":")[2] not in str(raised.value)


def test_a_database_that_is_missing(postgres: PostgresServer) -> None:
    with pytest.raises(Misconfigured, match=r"has no such database: make it, then run: sansfilm catalog migrate$"):
        open_postgres_catalog(postgres.url("nowhere"))


def test_no_password_and_no_value_in_what_may_be_logged(catalog: SqlCatalog, catalog_url: str) -> None:
    """Neither in an engine, nor in an error of ours or what it came from."""
    secret = catalog_url.split(":")[2].partition("@")[0]
    assert secret not in repr(catalog._engine) + repr(vars(catalog._engine)) + str(catalog._engine.url)
    with catalog._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE study ADD CONSTRAINT refuses CHECK (patient_id <> 'P1')")
    person = PatientAttributes(patient_id="P1", name="DOE^JANE")
    with pytest.raises(Fatal) as raised:
        commit(catalog, record("1.1", patient=person))
    told = "".join(traceback.format_exception(raised.value))
    assert "CheckViolation 23514" in told
    assert not any(word in told for word in (secret, person.name, person.patient_id))


def test_tables_that_went_away_are_told(catalog: SqlCatalog, reader: SqlCatalogReader, catalog_url: str) -> None:
    with psycopg.connect(catalog_url) as connection:
        connection.execute("DROP TABLE outbox; ALTER TABLE counter RENAME TO other")
    with pytest.raises(Misconfigured, match="run: sansfilm catalog migrate"):
        commit(catalog, record("1.1"))
    with pytest.raises(Misconfigured, match="run: sansfilm catalog migrate"):
        reader.counters(TENANT)


def test_sessions_that_an_operator_ends_are_opened_again(
    catalog: SqlCatalog, reader: SqlCatalogReader, postgres: PostgresServer, catalog_url: str
) -> None:
    commit(catalog, record("1.1"))
    assert reader.counters(TENANT)["instances"] == 1
    with postgres.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sansfilm'")
    assert commit(catalog, record("1.2")) == [NEW]
    assert reader.counters(TENANT)["instances"] == 2


def test_a_batch_takes_as_many_round_trips_as_one_instance(catalog: SqlCatalog) -> None:
    """Statements and syncs do not grow with the rows: the driver sends those of many rows in one go."""

    def trips(*records: InstanceRecord) -> list[str]:
        statements: list[str] = []

        def sent(connection: object, cursor: object, statement: str, *_: object) -> None:
            statements.append(statement[:40])

        event.listen(catalog._engine, "before_cursor_execute", sent)
        commit(catalog, *records)
        event.remove(catalog._engine, "before_cursor_execute", sent)
        return statements

    commit(catalog, record("0.1", study="0"), record("0.2", study="0"))
    people = [PatientAttributes(patient_id=f"P{n}") for n in range(100)]
    pair = [record(f"1.{n}", study="1", patient=people[n]) for n in (98, 99)]
    few = trips(*pair, record("0.1", "b", study="0"))
    many = [record(f"2.{n}", study=f"2.{n % 20}", patient=people[n]) for n in range(99)]
    assert trips(*many, record("0.2", "b", study="0")) == few
    assert len(few) < 40
