from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.workers.pool import Pool


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Makes a pool with these settings on the test's folder."""
    made: list[Pool] = []

    def make(**settings: object) -> Pool:
        made.append(Pool(tmp_path / "data", **settings))
        return made[-1]

    yield make
    for one in made:
        with closing(one.reader):
            pass


@pytest.fixture
def pool(make_pool: Callable[..., Pool]) -> Pool:
    return make_pool()
