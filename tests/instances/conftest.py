from collections.abc import Iterator

import pytest

from instances.decode import IsolatedDecoder


@pytest.fixture(scope="session")
def decoder() -> Iterator[IsolatedDecoder]:
    """One pool of children for the whole run: starting one costs a second."""
    decoder = IsolatedDecoder(processes=1, timeout_s=30, memory_max_bytes=2 << 30)
    yield decoder
    decoder.close()
