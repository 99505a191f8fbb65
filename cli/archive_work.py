"""What `sansfilm archive` does: verify, give back an original, rebuild, reconcile."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from archive.catalog import KnownVersion
from archive.findings import Finding, Progress
from archive.segment_store import Comparer
from cli.output import err, out, print_json, size_text, table
from cli.place import Place, open_place
from cli.send import progress_bar
from runtime.clock import SystemClock
from runtime.errors import Misconfigured
from runtime.settings import WebSettings, load_settings
from schemas.record import InstanceRecord

_FINDINGS_SHOWN = 50


def run_verify(data_dir: Path | None, *, as_json: bool) -> int:
    """Verify every stored byte; gives 1 if something is wrong."""
    from archive.verify import verify

    with open_place(data_dir, None) as place, _progress("reading everything") as progress:
        place.note("verify")
        done = verify(place.reader, place.store, progress)
    if as_json:
        counts = {"versions": done.versions, "quarantined": done.quarantined, "segments": done.segments}
        print_json({"clean": done.is_clean, **counts, "bytes": done.bytes, "findings": _plain(done.findings)})
    else:
        verdict = "all as received" if done.is_clean else "NOT all as received"
        read = f"{done.versions:,} versions and {done.quarantined:,} quarantined, {size_text(done.bytes)}"
        out().print(f"{read} in {done.segments:,} segments: {verdict}")
        _show(done.findings)
    return 0 if done.is_clean else 1


def run_original(
    data_dir: Path | None, tenant: str | None, uid: str, *, version: str, output: Path | None, dataset_only: bool
) -> int:
    """Write one original.

    Raises:
        Misconfigured: no such instance or version, or the file exists.
    """
    from archive.original import original, original_file

    with open_place(data_dir, tenant) as place:
        place.note("original", uid)
        known, record = _version(place, uid, version.lower())
        content = (original if dataset_only else original_file)(place.store, record, known.location)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return 0
    try:
        with output.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise Misconfigured(f"{output} exists already: name a new file") from error
    except OSError as error:
        raise Misconfigured(f"{output} cannot be written: {error.strerror}") from error
    err().print(f"{output}: {size_text(len(content))}, wire_sha256 {record.wire_sha256}", markup=False, soft_wrap=True)
    return 0


def run_rebuild(data_dir: Path | None, *, as_json: bool) -> int:
    """Rebuild the catalog; gives 1 if the archive had something to complain about.

    Raises:
        Misconfigured: sansfilm runs on the folder, or the database is not empty.
        Fatal: the new catalog would lose something; the old one stays.
    """
    from archive.rebuild import rebuild, rebuild_into
    from cli.folder import DataFolder

    with open_place(data_dir, None, without_catalog=True) as place:
        settings, url = place.settings, place.settings.catalog_url.get_secret_value()
        with _comparing(place) as equal, _progress("reading segments") as progress:
            if url:
                from archive.postgres import bounds_of

                done = rebuild_into(place.store, url, equal=equal, progress=progress, bounds=bounds_of(settings))
            else:
                with DataFolder(settings.data_dir):
                    done = rebuild(place.store, settings.catalog_path, equal=equal, progress=progress)
        counters = dict(place.reader.counters(settings.tenant))
    errors = [finding for finding in done.findings if finding.kind.is_error]
    if as_json:
        counts = {"segments": done.segments, "journal_entries": done.journal_entries, "records": done.records}
        print_json({"clean": not errors, **counts, "findings": _plain(done.findings), "catalog": counters})
    else:
        read = f"{done.records:,} records of {done.segments:,} segments and {done.journal_entries:,} journal entries"
        out().print(f"the catalog was rebuilt from {read}")
        _show(done.findings)
    return 1 if errors else 0


def run_reconcile(data_dir: Path | None, *, as_json: bool) -> int:
    """Bring a restored catalog up; gives 1 if the archive had something to complain about.

    Raises:
        Misconfigured: the catalog is embedded.
    """
    from archive.journal import conflict_writer, same_writer
    from archive.keeping import open_keeping
    from archive.opening import open_worker_catalog
    from archive.reconcile import Reconciliation

    clock = SystemClock()
    with open_place(data_dir, None) as place, closing(open_keeping(place.settings, clock)) as keeping:
        catalog = open_worker_catalog(place.settings, clock=clock)
        with closing(catalog), _comparing(place) as equal, _progress("comparing segments") as progress:
            done = Reconciliation(
                store=place.store,
                catalog=catalog,
                keeping=keeping,
                equal=equal,
                on_conflict=conflict_writer(place.store, clock),
                on_same=same_writer(place.store, clock),
            ).run(progress)
    errors = [finding for finding in done.findings if finding.kind.is_error]
    counts = {
        name: getattr(done, name)
        for name in ("segments", "records", "new", "conflicts", "decisions", "condemned", "moved")
    }
    if as_json:
        print_json({"clean": not errors, **counts, "findings": _plain(done.findings)})
    else:
        read = f"{done.records:,} records of {done.segments:,} segments that it did not know"
        came = f"{done.new:,} new, {done.conflicts:,} in conflict, {done.decisions:,} decisions"
        out().print(f"the catalog has {read}: {came}; the keeper goes on")
        _show(done.findings)
    return 1 if errors else 0


@contextmanager
def _comparing(place: Place) -> Iterator[Comparer]:
    from archive.compare import comparer
    from instances.decode import IsolatedDecoder

    limits = load_settings(WebSettings, data_dir=place.settings.data_dir)
    decoder = IsolatedDecoder(
        processes=limits.decode_processes,
        timeout_s=limits.decode_timeout_s,
        memory_max_bytes=limits.decode_memory_max_bytes,
    )
    with closing(decoder):
        yield comparer(place.store, decoder.samples)


@contextmanager
def _progress(text: str) -> Iterator[Progress]:
    with progress_bar() as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _version(place: Place, uid: str, digest: str) -> tuple[KnownVersion, InstanceRecord]:
    versions = place.reader.versions(place.scope, uid)
    if not versions:
        raise Misconfigured(f"there is no instance {uid} in tenant {place.scope.tenant}")
    fitting = [one for one in versions if (one[0].wire_sha256.startswith(digest) if digest else one[0].current)]
    if len(fitting) != 1:
        raise Misconfigured(f"{digest} names no single version of {uid}: see sansfilm trace {uid}")
    return fitting[0]


def _show(findings: Sequence[Finding]) -> None:
    if not findings:
        return
    rows = [(found.kind, found.sop_instance_uid, found.segment, found.detail) for found in findings[:_FINDINGS_SHOWN]]
    out().print(table("", ("finding", "instance", "segment", "detail"), rows))
    if len(findings) > _FINDINGS_SHOWN:
        out().print(f"and {len(findings) - _FINDINGS_SHOWN:,} more (--json lists all)")


def _plain(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [asdict(finding) for finding in findings]
