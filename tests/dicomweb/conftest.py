"""Fixtures of the readers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instances.decode import IsolatedDecoder
from tests.dicomweb.library import Library


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def decoder() -> Iterator[IsolatedDecoder]:
    """One for all tests: its children take a second to start."""
    decoder = IsolatedDecoder(processes=1, timeout_s=20, memory_max_bytes=2 << 30)
    yield decoder
    decoder.close()


@pytest.fixture
def library(tmp_path: Path, decoder: IsolatedDecoder) -> Iterator[Library]:
    """An empty archive."""
    library = Library(tmp_path, decoder)
    yield library
    library.close()
