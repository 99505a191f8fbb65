"""What a commit costs as the catalog grows: ``python -m benchmarks.insert_cost``.

Catalogs on SQLite and on a real PostgreSQL are filled to each of `--rows` instances, past the commit; then batches of
256 instances are committed as the worker does it: four studies at a time, each new at first and then growing. UIDs are
those of devices, one after the other, or random ones. Beside them: one fdatasync of the disk, and a transaction of one
small row. At the end several processes commit to one PostgreSQL at once, for one tenant and for a tenant each: what
they share is the tenant's counters.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from archive.catalog import KnownVersion
from archive.postgres import Bounds, migration_engine
from archive.revisions import migrate
from archive.sql_catalog import SqlCatalog, open_catalog, open_postgres_catalog
from benchmarks import ceilings
from benchmarks.catalog_rows import (
    INSTANCES_PER_STUDY,
    KINDS,
    TENANT,
    Kind,
    fill_postgres,
    fill_sqlite,
    placed_record,
)
from benchmarks.insert_plot import draw
from region.postgres import PostgresServer
from schemas.record import PlacedRecord

BATCH = 256
#: Studies that are sent at the same time.
_STUDIES_AT_ONCE = 4
_WARM_UP = 5
_SINGLE_ROWS = 200
#: Between the studies of committers, so that none of them meets another's.
_APART = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What batches cost at a size; milliseconds, each of one batch."""

    catalog: str
    uids: Kind
    rows: int
    batches: int
    batch_ms_median: float
    batch_ms_p10: float
    batch_ms_p90: float
    instance_ms_median: float
    single_row_ms_median: float
    fill_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print each cost as it is known, then everything as JSON."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        work = Path(folder)
        context = _context(work, options)
        print(json.dumps(context, indent=1), file=sys.stderr, flush=True)
        costs = [
            cost for name in options.catalogs for kind in options.uids for cost in _grow(name, kind, options, work)
        ]
        together = _together(work, options) if options.committers > 1 else []
    report = {"context": context, "costs": [asdict(cost) for cost in costs], "together": together}
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1))
    if options.plot:
        Path(options.plot).write_text(draw(report["costs"]))  # type: ignore[arg-type]
    print(json.dumps(report, indent=1))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="instances, growing")
    parser.add_argument("--batches", type=int, default=40, help="batches measured at each size")
    parser.add_argument("--catalogs", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"])
    parser.add_argument("--uids", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--committers", type=int, default=4, help="processes that commit at once; 1: not measured")
    parser.add_argument("--folder", default=None, help="where the data goes; otherwise the temporary folder")
    parser.add_argument("--json", default=None, help="file for the report")
    parser.add_argument("--plot", default=None, help="file for the picture, SVG")
    return parser.parse_args(arguments)


# ---- one process, a growing catalog --------------------------------------------------------------------------------


def _grow(name: str, kind: Kind, options: argparse.Namespace, work: Path) -> Iterator[Cost]:
    if name == "sqlite":
        path = work / f"{kind}.sqlite"
        open_catalog(path).close()
        yield from _sizes(
            name, kind, options, lambda rows: fill_sqlite(path, instances=rows, kind=kind), lambda: open_catalog(path)
        )
        path.resolve().unlink()
        return
    with PostgresServer(work / f"postgres-{kind}") as server:
        url = _new_database(server)
        yield from _sizes(
            name,
            kind,
            options,
            lambda rows: fill_postgres(url, instances=rows, kind=kind),
            lambda: open_postgres_catalog(url),
        )


def _sizes(
    name: str,
    kind: Kind,
    options: argparse.Namespace,
    fill: Callable[[int], int],
    opened: Callable[[], SqlCatalog],
) -> Iterator[Cost]:
    for rows in sorted(options.rows):
        begin_s = time.perf_counter()
        study = fill(rows)
        fill_s = time.perf_counter() - begin_s
        with closing(opened()) as catalog:
            spans = _measure(catalog, kind, study, options.batches)
            single = _single_rows(catalog)
        median = statistics.median(spans)
        tenths = statistics.quantiles(spans, n=10) if len(spans) > 1 else [median] * 9
        cost = Cost(
            catalog=name,
            uids=kind,
            rows=rows,
            batches=len(spans),
            batch_ms_median=round(median * 1e3, 1),
            batch_ms_p10=round(tenths[0] * 1e3, 1),
            batch_ms_p90=round(tenths[8] * 1e3, 1),
            instance_ms_median=round(median * 1e3 / BATCH, 3),
            single_row_ms_median=round(statistics.median(single) * 1e3, 2),
            fill_s=round(fill_s, 1),
        )
        print(json.dumps(asdict(cost)), file=sys.stderr, flush=True)
        yield cost


def _measure(catalog: SqlCatalog, kind: Kind, study: int, batches: int, tenant: str = TENANT) -> list[float]:
    """Seconds of each commit, warming up apart."""
    spans = []
    for batch in _batches(kind, study, batches + _WARM_UP, tenant):
        begin_s = time.perf_counter()
        verdicts = catalog.commit_batch(batch, equal=_never_equal, on_conflict=_no_conflict)
        spans.append(time.perf_counter() - begin_s)
        assert len(verdicts) == BATCH
    return spans[_WARM_UP:]


def _batches(kind: Kind, study: int, count: int, tenant: str = TENANT) -> Iterator[list[PlacedRecord]]:
    """Batches of a few studies at a time; when one is complete the next one begins."""
    sent = [[study + at, 0] for at in range(_STUDIES_AT_ONCE)]
    following = study + _STUDIES_AT_ONCE
    for _ in range(count):
        batch = []
        for at in range(BATCH):
            place = sent[at % _STUDIES_AT_ONCE]
            if place[1] == INSTANCES_PER_STUDY:
                place[:] = [following, 0]
                following += 1
            batch.append(placed_record(kind, place[0], place[1], tenant=tenant))
            place[1] += 1
        yield batch


def _never_equal(_: PlacedRecord, __: KnownVersion) -> bool:
    return False


def _no_conflict(_: PlacedRecord, __: KnownVersion) -> None:
    raise AssertionError("every instance is new")


def _single_rows(catalog: SqlCatalog) -> list[float]:
    """Seconds of transactions that change one small row: what a durable commit costs at least."""
    spans = []
    for number in range(_SINGLE_ROWS):
        begin_s = time.perf_counter()
        catalog.save_attempts("benchmark", str(number))
        spans.append(time.perf_counter() - begin_s)
    return spans


def _new_database(server: PostgresServer) -> str:
    url = server.create_database("catalog")
    engine = migration_engine(url, Bounds())
    migrate(engine)
    engine.dispose()
    return url


# ---- several processes ---------------------------------------------------------------------------------------------


def _together(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Instances a second of processes that commit at once, each to studies of its own."""
    found = []
    for processes, shared in ((1, True), (options.committers, True), (options.committers, False)):
        with PostgresServer(work / f"together-{processes}-{shared}") as server:
            url = _new_database(server)
            seconds = _commit_together(url, processes, shared, options.batches)
        told = {
            "processes": processes,
            "tenants": 1 if shared else processes,
            "instances_per_s": round(processes * options.batches * BATCH / seconds),
        }
        print(json.dumps(told), file=sys.stderr, flush=True)
        found.append(told)
    return found


def _commit_together(url: str, processes: int, shared: bool, batches: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    running = [
        context.Process(target=_committer, args=(url, TENANT if shared else f"t{at}", at, batches, barrier))
        for at in range(processes)
    ]
    for process in running:
        process.start()
    barrier.wait()
    begin_s = time.perf_counter()
    for process in running:
        process.join()
    assert all(process.exitcode == 0 for process in running)
    return time.perf_counter() - begin_s


def _committer(url: str, tenant: str, at: int, batches: int, barrier: Barrier) -> None:
    made = list(_batches("device", (at + 1) * _APART, batches, tenant))
    with closing(open_postgres_catalog(url)) as catalog:
        barrier.wait()
        for batch in made:
            catalog.commit_batch(batch, equal=_never_equal, on_conflict=_no_conflict)


# ---- context -------------------------------------------------------------------------------------------------------


def _context(work: Path, options: argparse.Namespace) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "host": {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "python": sys.version.split()[0],
        },
        "commit": commit.stdout.strip(),
        "rows": options.rows,
        "batch": BATCH,
        "batches": options.batches,
        "studies_at_once": _STUDIES_AT_ONCE,
        "instances_per_study": INSTANCES_PER_STUDY,
        "ceilings": ceilings.disk_sync(work, size_bytes=BATCH * 4096),
    }


if __name__ == "__main__":
    main()
