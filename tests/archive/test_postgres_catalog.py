"""The catalog on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from archive.catalog import Catalog
from archive.sql_catalog import SqlCatalog, open_postgres_catalog
from archive.sql_reader import SqlCatalogReader, open_postgres_reader
from tests.archive.contract_catalog import CatalogContract
from tests.archive.samples import StepClock


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
