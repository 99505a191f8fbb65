"""Which revision a catalog's tables have, whether this program works with it, and bringing it to this program's own.

Alembic is imported only where tables are changed: it takes longer to load than a catalog takes to open.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, insert, inspect, select, text, update

from archive import schema
from archive.errors import MIGRATE, mapped_errors
from archive.wording import is_postgres
from runtime.errors import Misconfigured

#: "sansfilm": whoever changes this database's tables holds it.
_LOCK: Final = 0x73616E7366696C6D
_FOLDER: Final = Path(__file__).parent / "migrations"


def revision_of(connection: Connection) -> int:
    """The revision of the tables; 0 if there are none."""
    if not inspect(connection).has_table(schema.catalog_revision.name):
        return 0
    return int(connection.scalar(select(schema.catalog_revision.c.revision)) or 0)


def check_revision(connection: Connection, *, since: int = schema.REVISION) -> None:
    """Accept tables of this program's revision, of the one after it, and of those back to `since`.

    Raises:
        Misconfigured: there are none, or others; the message says which command to run.
    """
    revision = revision_of(connection)
    if since <= revision <= schema.REVISION + 1:
        return
    if not is_postgres(connection):
        raise Misconfigured("the catalog has another revision than this program; run: sansfilm archive rebuild")
    if revision > schema.REVISION:
        raise Misconfigured(
            f"the catalog's tables have revision {revision}, this program knows {schema.REVISION} and the next one: "
            "update sansfilm"
        )
    if revision == 0:
        raise Misconfigured(f"the catalog's database has no tables yet; {MIGRATE}")
    raise Misconfigured(
        f"the catalog's tables have revision {revision}, this program needs {schema.REVISION}; {MIGRATE}"
    )


def bring_on(engine: Engine) -> None:
    """Bring an older SQLite catalog to this program's revision; only its one writer may."""
    with mapped_errors(), engine.connect() as connection:
        before = revision_of(connection)
    if 0 < before < schema.REVISION:
        migrate(engine)


def migrate(engine: Engine) -> tuple[int, int]:
    """Bring the tables to this program's revision, in one transaction; gives the revision before and now.

    Tables of a newer revision are left alone. Two at once are harmless: the second one finds nothing to do.

    Raises:
        Retryable: nothing was changed.
        Misconfigured: the user may not change tables.
    """
    with mapped_errors(), engine.begin() as connection:
        if is_postgres(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = revision_of(connection)
        if before < schema.REVISION:
            _apply(connection, before)
        return before, revision_of(connection)


def _apply(connection: Connection, before: int) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    table = schema.catalog_revision
    with Operations.context(MigrationContext.configure(connection)):
        for step in _steps():
            if int(step.revision) > before:
                step.module.upgrade()
                first = int(step.revision) == 1
                connection.execute((insert if first else update)(table).values(revision=int(step.revision)))


def _steps() -> Sequence[Any]:
    """Every revision, oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER / "versions")])
    return list(script.walk_revisions())[::-1]
