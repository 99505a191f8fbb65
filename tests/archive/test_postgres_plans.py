"""No statement of a commit, and none of a reader, reads through a table that grows: PostgreSQL's own plans say so.

The tables are filled and their statistics gathered, so that the planner chooses as it would in an archive; what it
forbids itself for commits (`archive.postgres.writer_engine`) is allowed again for the proof.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from archive.catalog import Between, OneOf, Query, Wildcard
from archive.postgres import Bounds, reader_engine
from archive.search import answer_to
from archive.sql_catalog import open_postgres_catalog
from archive.sql_reader import open_postgres_reader
from benchmarks.catalog_rows import fill_postgres, uid
from region.postgres import PostgresServer
from tests.archive.contract_catalog import commit
from tests.archive.samples import SCOPE, TENANT, placed, quarantined, record

#: The outbox is none of them: it is bounded.
GROWING = {"study", "series", "instance", "version", "sop", "segment", "patient_identifier", "quarantine"}
INSTANCES, PER_STUDY = 60_000, 6


@pytest.fixture(scope="module")
def filled(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    """A catalog with many rows, and statistics of them."""
    url = postgres.create_database("filled", template=migrated)
    fill_postgres(url, instances=INSTANCES, instances_per_study=PER_STUDY)
    yield url
    postgres.drop_database("filled")


def scans(plan: Any) -> Iterator[str]:
    """The tables that a plan reads through."""
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for child in plan.get("Plans", ()):
        yield from scans(child)


def plans_of(url: str, statements: list[tuple[str, Any]], *, settings: str = "") -> list[tuple[str, Any]]:
    """Each statement with its plan, as a session of its own would run it."""
    with psycopg.connect(url) as connection:
        if settings:
            connection.execute(settings.encode())
        found = []
        for statement, parameters in statements:
            row = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), parameters).fetchone()
            assert row is not None
            found.append((statement, row[0][0]["Plan"]))
        return found


def test_the_cost_of_a_commit_does_not_grow_with_the_rows(filled: str) -> None:
    statements: list[tuple[str, Any]] = []

    def sent(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")) and "pg_advisory" not in statement:
            statements.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    with closing(open_postgres_catalog(filled)) as catalog:
        commit(catalog, *(record(f"9.{n}") for n in range(50)))
        event.listen(catalog._engine, "before_cursor_execute", sent)
        batch = [record(f"9.{n}", "b") for n in range(50)] + [record(f"8.{n}", study=f"8.{n}") for n in range(50)]
        commit(catalog, *batch)
        catalog.commit_batch([placed(quarantined("q1"))], equal=lambda *_: False, on_conflict=lambda *_: None)
        catalog.save_attempts("a", "{}")
    told = plans_of(filled, statements)
    assert len(told) > 30
    assert [(statement[:200], sorted(scans(plan))) for statement, plan in told if GROWING & set(scans(plan))] == []


STUDY, SERIES, SOP = uid("device", 77), uid("device", 77, 1), uid("device", 77, 1, 3)
SEARCHES = [
    Query(level="study", matches={}, limit=20),
    Query(level="study", matches={}, limit=20, offset=200),
    Query(level="study", matches={"PatientID": OneOf(values=("P77",))}, limit=20),
    Query(level="study", matches={"AccessionNumber": OneOf(values=("A77",))}, limit=20),
    Query(level="study", matches={"StudyDate": Between(low="20250301")}, limit=20),
    Query(level="study", matches={"PatientName": Wildcard(pattern="DUPONT77*")}, limit=20),
    Query(level="study", matches={"PatientName": OneOf(values=("DUPONT77^ANNE",))}, limit=20),
    Query(level="study", matches={"StudyInstanceUID": OneOf(values=(STUDY,))}, limit=20),
    Query(level="study", matches={"StudyInstanceUID": OneOf(values=(STUDY, uid("device", 78)))}, limit=20),
    Query(level="study", matches={}, limit=20, text="dupont77"),
    Query(level="study", matches={}, limit=20, text="dupont77 anne"),
    Query(level="series", matches={"StudyInstanceUID": OneOf(values=(STUDY,))}, limit=20),
    Query(level="series", matches={"SeriesInstanceUID": OneOf(values=(SERIES,))}, limit=20),
    Query(level="instance", matches={"SOPInstanceUID": OneOf(values=(SOP,))}, limit=20),
    Query(level="instance", matches={"StudyInstanceUID": OneOf(values=(STUDY,))}, limit=20),
]


@pytest.mark.parametrize("query", SEARCHES, ids=lambda query: f"{query.level} {query.text} {' '.join(query.matches)}")
def test_searches_use_an_index(filled: str, query: Query) -> None:
    engine = reader_engine(filled, Bounds())
    rows = answer_to(TENANT, query).rows.limit(query.limit).offset(query.offset)
    statement = str(rows.compile(engine, compile_kwargs={"literal_binds": True})).replace("%%", "%")
    ((_, plan),) = plans_of(filled, [(statement, None)])
    assert not GROWING & set(scans(plan)), json.dumps(plan, indent=1)
    engine.dispose()


def test_what_else_readers_ask_uses_an_index(filled: str) -> None:
    statements: list[tuple[str, Any]] = []

    def sent(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    with closing(open_postgres_reader(filled)) as reader, closing(open_postgres_catalog(filled)) as catalog:
        engine = reader._engine()
        assert engine is not None
        for listened in (engine, catalog._hints):
            event.listen(listened, "before_cursor_execute", sent)
        assert len(list(reader.instances(SCOPE, STUDY))) == PER_STUDY
        assert len(list(reader.instances(SCOPE, STUDY, SERIES, SOP))) == 1
        assert len(reader.versions(SCOPE, SOP)) == 1
        assert [len(reader.trace(SCOPE, uid)) > 0 for uid in (SOP, SERIES, STUDY, "0")] == [True, True, True, False]
        assert reader.conflicts(SCOPE) is not None
        assert reader.counters(TENANT)["instances"] >= INSTANCES
        assert next(reader.placed()) is not None
        assert list(catalog.known(TENANT, [SOP, "0"])) == [SOP]
        assert not catalog.has_committed("nothing")
    assert len(statements) > 10
    told = plans_of(filled, [one for one in statements if one[0].startswith("SELECT")])
    assert [(statement, sorted(scans(plan))) for statement, plan in told if GROWING & set(scans(plan))] == []
