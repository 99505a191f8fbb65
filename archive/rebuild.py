"""A new catalog from segments and journal alone (`archive.replay`).

SQLite: built beside the old one, verified, then swapped in. A batch that was put and not committed before a crash is
committed by the next start (`archive.unfinished`), so the order of puts is the order of commits.

PostgreSQL: into an empty database that nobody uses yet; swapping is naming it in the settings.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from archive import tide
from archive.database import (
    create_file,
    generation_path,
    integrity_error,
    lock_writer,
    point_link,
    remove_file,
    sweep_generations,
)
from archive.findings import Progress, no_progress
from archive.replay import IdClock, Rebuilding, Replay
from archive.segment_store import Comparer, SegmentStore
from archive.sql_catalog import catalog_in, open_postgres_catalog
from archive.sql_reader import open_reader
from runtime.clock import Clock, SystemClock
from runtime.errors import Fatal, Misconfigured
from runtime.logs import get_logger
from schemas.record import InstanceRecord, PlacedRecord

if TYPE_CHECKING:  # the driver takes time to load, and an embedded catalog has no use for it
    from archive.postgres import Bounds


def rebuild(
    store: SegmentStore,
    catalog_path: Path,
    *,
    equal: Comparer,
    progress: Progress = no_progress,
    accept_losses: bool = False,
    clock: Clock | None = None,
) -> Rebuilding:
    """Replace the catalog at `catalog_path` by one made from `store`; readers follow by themselves.

    Progress counts segments. `accept_losses` swaps even if versions of the old catalog are missing in the new one.

    Raises:
        Misconfigured: a worker is writing the catalog; stop it first.
        Fatal: the new catalog does not hold what the old one holds, or is damaged; the old one stays.
        Retryable, OutOfSpace: not finished; the old one stays.
    """
    clock = clock or SystemClock()
    lock = lock_writer(catalog_path)
    fresh = generation_path(catalog_path, clock)
    try:
        sweep_generations(catalog_path)
        create_file(fresh)
        report = _replayed(store, fresh, equal, progress)
        _check(catalog_path, fresh, accept_losses=accept_losses)
        point_link(catalog_path, fresh)
        return report
    except BaseException:
        remove_file(fresh)
        raise
    finally:
        lock.close()


def rebuild_into(
    store: SegmentStore, url: str, *, equal: Comparer, progress: Progress = no_progress, bounds: Bounds | None = None
) -> Rebuilding:
    """Fill the empty PostgreSQL catalog at `url` from `store`; its tables are there. Other systems are told nothing.

    The archive belongs to this catalog from the beginning: whoever keeps it with another one stops collecting.
    Memory: the journal, a transaction's records, the indexes of a few compacted segments.

    Raises:
        Misconfigured: it is not empty.
        Retryable: not finished; make the database anew.
    """
    from archive.keeping import open_postgres_keeping

    clock = IdClock()
    with closing(open_postgres_catalog(url, bounds=bounds, clock=clock, tells=False)) as catalog:
        if not catalog.is_empty():
            raise Misconfigured(
                "the catalog's database is not empty: make a new one, run sansfilm catalog migrate on it, rebuild into "
                "it, and let SANSFILM_CATALOG_URL of every role name it"
            )
        with closing(open_postgres_keeping(url, bounds=bounds, clock=SystemClock())) as keeping:
            written = tide.read(store)
            tide.write(store, keeping.begin_anew(at_least=written.tide if written else 0))
            replay = Replay(store=store, catalog=catalog, equal=equal, clock=clock)
            report = replay.run(progress)
            keeping.note_fates(condemned=replay.noted.condemned, replaced=replay.noted.replaced)
    return report


def _replayed(store: SegmentStore, path: Path, equal: Comparer, progress: Progress) -> Rebuilding:
    clock = IdClock()
    with closing(catalog_in(path, clock=clock)) as catalog:
        return Replay(store=store, catalog=catalog, equal=equal, clock=clock).run(progress)


def _check(old: Path, new: Path, *, accept_losses: bool) -> None:
    """Raises:
    Fatal: the new file is damaged, or lacks a version that the old catalog has.
    """
    if error := integrity_error(new):
        raise Fatal(f"the new catalog is damaged ({error}); the old one stays in use")
    if accept_losses or not old.exists():
        return
    try:
        before = _versions(old)
    except Fatal as error:  # damaged, or of another revision: why a rebuild is wanted
        get_logger().warning("old_catalog_not_compared", error=str(error))
        return
    if missing := before - _versions(new):
        raise Fatal(
            f"{len(missing)} versions of the catalog are not in the archive's segments; the old catalog stays in use. "
            "Run sansfilm archive verify"
        )


def _versions(path: Path) -> set[tuple[str, str, str]]:
    """Tenant, UID and digest of every version, tenant and id of every quarantine entry."""
    reader = open_reader(path)
    try:
        return {_identity(placed) for placed, _ in reader.placed()}
    finally:
        reader.close()


def _identity(placed: PlacedRecord) -> tuple[str, str, str]:
    record = placed.record
    tenant = record.attributes.tenant
    if isinstance(record, InstanceRecord):
        return tenant, record.instance.sop_instance_uid, record.wire_sha256
    return tenant, "", record.attributes.id
