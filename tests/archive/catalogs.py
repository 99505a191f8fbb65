"""Catalogs of either kind for tests that run on both: SQLite in a folder, PostgreSQL in a database of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from archive.sql_catalog import SqlCatalog, open_catalog, open_postgres_catalog
from archive.sql_reader import SqlCatalogReader, open_postgres_reader, open_reader
from tests.archive.samples import StepClock

KINDS: Final = ("sqlite", "postgres")
_numbers = itertools.count()


@contextmanager
def opened(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[SqlCatalog, SqlCatalogReader]]:
    """An empty catalog of the kind that the fixture's parameter names, and its reader; closed afterwards."""
    if request.param == "sqlite":
        path = folder / "catalog.sqlite"
        with closing(open_catalog(path, clock=StepClock())) as catalog, closing(open_reader(path)) as reader:
            yield catalog, reader
        return
    server, name = request.getfixturevalue("postgres"), f"both_{next(_numbers)}"
    url = server.create_database(name, template=request.getfixturevalue("migrated"))
    with (
        closing(open_postgres_catalog(url, clock=StepClock())) as catalog,
        closing(open_postgres_reader(url)) as reader,
    ):
        yield catalog, reader
    server.drop_database(name)
