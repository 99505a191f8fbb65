"""`sansfilm catalog` against a real PostgreSQL, and beside a data folder."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archive import tide
from archive.incarnation import Incarnation
from archive.local_store import LocalSegmentStore
from archive.sql_catalog import open_catalog, open_postgres_catalog
from cli.main import app

RUNNER = CliRunner()


def run(*arguments: str) -> tuple[int, str]:
    """A command's exit code and what it printed."""
    done = RUNNER.invoke(app, ["catalog", *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_a_database_is_migrated_once_and_then_fits(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SANSFILM_CATALOG_URL", empty_database)
    monkeypatch.setenv("SANSFILM_DATA_DIR", str(tmp_path))
    assert run("check")[0] == 2
    assert run("migrate") == (0, "the catalog's tables were brought from revision 0 to 3")
    assert run("migrate") == (0, "the catalog's tables have revision 3 already: nothing was changed")
    code, said = run("check")
    assert (code, said.startswith("the catalog in 127.0.0.1:"), said.endswith("fits this program")) == (0, True, True)
    told = json.loads(run("check", "--json")[1])
    assert (told["revision"], told["tide"], len(told["incarnation"])) == (3, 0, 36)
    assert json.loads(run("migrate", "--json")[1]) == {"before": 3, "revision": 3}
    with closing(open_postgres_catalog(empty_database)) as catalog:
        assert catalog.raise_tide() == 1
        assert catalog.incarnation().tide == 1
    with closing(LocalSegmentStore(tmp_path / "archive")) as store:
        tide.write(store, Incarnation(id=told["incarnation"], tide=2))
    code, said = run("check")
    assert (code, said.endswith("run sansfilm archive reconcile")) == (1, True)
    assert run("check", "--json")[0] == 1


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SANSFILM_CATALOG_URL", "postgresql://ops:secret@127.0.0.1:1/catalog")
    for command in ("check", "migrate"):
        code, said = run(command)
        told = said + capfd.readouterr().err
        assert code == 2
        assert "PostgreSQL at 127.0.0.1:1/catalog is not reachable" in told
        assert "secret" not in told


def test_a_catalog_in_the_data_folder(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))
    assert run("check", *folder)[0] == 2
    assert run("migrate", *folder)[0] == 0
    open_catalog(tmp_path / "catalog" / "catalog.sqlite").close()
    assert run("check", *folder)[0] == 0
