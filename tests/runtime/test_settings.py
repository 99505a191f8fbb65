"""Settings: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import Misconfigured
from runtime.settings import CommonSettings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own: a settings file is read from there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Hospital-A", "journal", "", "../up", "a" * 64, "köln"])
def test_a_tenant_that_cannot_be_a_folder_is_refused_at_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANSFILM_TENANT", name)
    with pytest.raises(Misconfigured, match=r"SANSFILM_TENANT: .*lower-case letters, digits and hyphens"):
        load_settings(CommonSettings)


def test_a_tenant_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANSFILM_TENANT", "hospital-a")
    assert load_settings(CommonSettings).tenant == "hospital-a"
