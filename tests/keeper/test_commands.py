"""What an operator says to a region whose PostgreSQL was lost, restored, or made anew."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from archive import tide
from archive.incarnation import Incarnation
from cli.main import app
from keeper.keeper import run_keeper
from runtime.errors import Misconfigured
from runtime.settings import KeeperSettings
from tests.archive.house import snapshot
from tests.archive.samples import member
from tests.datasets import mr_dataset
from tests.keeper.site import Site
from tests.keeper.test_reconcile import fresh_url, live_through

__all__ = ["fresh_url"]


@pytest.fixture
def say(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command on the site, or on another database; gives its exit code and what it answered."""

    def run(*words: str, **settings: object) -> tuple[int, Any]:
        for name, value in site.settings(DATA_DIR=tmp_path, **settings).items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(app, [*words, "--json"])
        return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else done.output

    return run


def test_rebuild_fills_an_empty_database(site: Site, say: Any, fresh_url: str) -> None:
    live_through(site)
    code, told = say("archive", "rebuild", CATALOG_URL=fresh_url)
    assert (code, told["clean"], told["catalog"]["instances"]) == (0, True, 4)
    with closing(Site(site.access, fresh_url)) as again:
        assert snapshot(again.reader) == snapshot(site.reader)
    assert say("archive", "rebuild", CATALOG_URL=fresh_url)[0] == 2


def test_status_says_that_the_catalog_was_restored_until_it_is_reconciled(site: Site, say: Any) -> None:
    site.take(member(mr_dataset(1)))
    site.put(member(mr_dataset(2)))
    assert say("status")[1]["restored"] is False
    tide.write(site.store, Incarnation(id=site.keeping.life().id, tide=5))
    assert say("status")[1]["restored"] is True
    assert say("catalog", "check")[0] == 1
    code, told = say("archive", "reconcile")
    assert (code, told["clean"], told["new"]) == (0, True, 1)
    assert say("status")[1]["restored"] is False
    assert (say("catalog", "check")[0], site.keeping.life().tide) == (0, 6)


def test_an_embedded_archive_has_nothing_to_reconcile(say: Any) -> None:
    assert say("archive", "reconcile", CATALOG_URL="")[0] == 2
    with pytest.raises(Misconfigured, match="an embedded archive needs none"):
        run_keeper(KeeperSettings(), threading.Event(), lambda: None)
