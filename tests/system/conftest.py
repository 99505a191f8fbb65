"""The whole product on a folder and ports of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_up import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")
