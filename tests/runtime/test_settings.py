"""Settings: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import Misconfigured
from runtime.settings import CommonSettings, EdgeSettings, WorkerSettings, load_settings


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


def test_the_file_of_settings_is_shared_by_all_roles(folder: Path) -> None:
    (folder / "sansfilm.toml").write_text('tenant = "north"\ndicom_port = 104\nworker_threads = 3\n')
    assert load_settings(CommonSettings).tenant == "north"
    assert load_settings(EdgeSettings).dicom_port == 104
    assert load_settings(WorkerSettings).worker_threads == 3


def test_a_misspelt_setting_in_the_file_is_refused(folder: Path) -> None:
    (folder / "sansfilm.toml").write_text("dicom_prt = 104\n[web]\nx = 1\n")
    with pytest.raises(Misconfigured, match=r"sansfilm\.toml: there is no setting dicom_prt \(dicom_port\?\), web"):
        load_settings(WorkerSettings)


@pytest.mark.parametrize("content", [b"dicom_port = \n", b"\xff\xfe", b"tenant = 'a'\ntenant = 'b'\n"])
def test_a_file_that_is_no_toml_is_one_sentence(folder: Path, content: bytes) -> None:
    (folder / "sansfilm.toml").write_bytes(content)
    with pytest.raises(Misconfigured, match=r"sansfilm\.toml cannot be read: "):
        load_settings(CommonSettings)


def test_a_file_that_may_not_be_read_is_one_sentence(folder: Path) -> None:
    (folder / "sansfilm.toml").symlink_to("sansfilm.toml")
    with pytest.raises(Misconfigured, match=r"sansfilm\.toml cannot be read: "):
        load_settings(CommonSettings)
