"""`sansfilm catalog`: the tables of a PostgreSQL catalog: make or bring them on, see whether they fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from runtime.settings import CommonSettings

catalog = typer.Typer(no_args_is_help=True, help="The catalog's tables: make them, bring them on, check them.")

DataDir = Annotated[Optional[Path], typer.Option(help="Folder of everything this machine keeps.")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]


@catalog.command()
def migrate(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Make the tables in the database of SANSFILM_CATALOG_URL, or bring them to this program's revision.

    All or nothing, and two at once are harmless. Run it before a newer sansfilm is started; an older one goes on
    working meanwhile. A catalog in the data folder (SQLite) needs none of it: its worker does the same when it starts.
    """
    from archive.revisions import migrate as bring_on
    from cli.output import out, print_json

    settings = _settings(data_dir)
    engine = _engine(settings)
    if engine is None:
        out().print("the catalog is a file in the data folder: its worker makes the tables when it starts")
        return
    try:
        before, now = bring_on(engine)
    finally:
        engine.dispose()
    if as_json:
        print_json({"before": before, "revision": now})
    elif before == now:
        out().print(f"the catalog's tables have revision {now} already: nothing was changed")
    else:
        out().print(f"the catalog's tables were brought from revision {before} to {now}")


@catalog.command()
def check(data_dir: DataDir = None, as_json: Json = False) -> None:
    """See whether the catalog can be reached and its tables fit this program; changes nothing.

    Exit code 2 and a sentence if a worker would not start on it; 1 if it was restored from a backup and has to be
    brought up to its archive (sansfilm archive reconcile).
    """
    from contextlib import closing

    from archive import schema, tide
    from archive.opening import open_store
    from archive.postgres import bounds_of, place_of
    from archive.sql_catalog import open_postgres_catalog
    from cli.output import out, print_json

    settings = _settings(data_dir)
    url, restored = settings.catalog_url.get_secret_value(), False
    if not url:
        _check_file(settings)
        place = str(settings.catalog_path)
    else:
        with closing(open_store(settings)) as store:
            written = tide.read(store)
        with closing(open_postgres_catalog(url, bounds=bounds_of(settings))) as opened:
            life, place = opened.incarnation(), place_of(url)
        restored = tide.is_restored(written, life)
    if as_json:
        body: dict[str, object] = {"place": place, "revision": schema.REVISION}
        print_json(body | ({"incarnation": life.id, "tide": life.tide, "restored": restored} if url else {}))
    else:
        out().print(f"the catalog in {place} fits this program", markup=False, soft_wrap=True)
        if restored:
            out().print("it was restored since it kept this archive: run sansfilm archive reconcile", soft_wrap=True)
    if restored:
        raise typer.Exit(1)


def _settings(data_dir: Path | None) -> CommonSettings:
    from runtime.settings import CommonSettings, load_settings

    return load_settings(CommonSettings, data_dir=data_dir)


def _engine(settings: CommonSettings) -> Engine | None:
    """An engine to change tables with; None where the catalog is a file.

    Raises:
        Misconfigured: the server is not reachable, refuses us, or has not the database.
    """
    from archive.postgres import bounds_of, checked, migration_engine

    url = settings.catalog_url.get_secret_value()
    return checked(migration_engine(url, bounds_of(settings)), url, since=None) if url else None


def _check_file(settings: CommonSettings) -> None:
    from contextlib import closing

    from archive.sql_reader import open_reader
    from runtime.errors import Misconfigured

    if not settings.catalog_path.exists():
        raise Misconfigured(f"there is no catalog {settings.catalog_path} yet: a worker makes it when it starts")
    with closing(open_reader(settings.catalog_path)) as reader:
        reader.counters(settings.tenant)
