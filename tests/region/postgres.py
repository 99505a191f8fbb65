"""PostgreSQL for tests: one server a session, started when a test first asks, and a database for each test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from archive.postgres import Bounds, migration_engine
from archive.revisions import migrate
from region.postgres import PostgresServer

_TEMPLATE: Final = "migrated"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's server. A test that kills or freezes it leaves it running."""
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """The name of a database with the catalog's tables and nothing in them, to make copies of."""
    make_tables(postgres.create_database(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database without tables, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def catalog_url(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    """The URL of a database with the catalog's tables, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name, template=migrated)
    postgres.drop_database(name)


def make_tables(url: str) -> None:
    """Bring the tables of a database to this program's revision."""
    engine = migration_engine(url, Bounds())
    try:
        migrate(engine)
    finally:
        engine.dispose()
