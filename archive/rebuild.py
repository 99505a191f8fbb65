"""A new catalog from segments and journal alone: built beside the old one, verified, then swapped in.

Segments and journal entries are replayed in the order of their ids, which is the order in which they were put, through
the very commit that made the live catalog. What the journal says was decided is not decided again:

* content noted as a conflict is never compared, it is a further version;
* after a noted conflict, the version it names is the current one;
* decisions are executed where they stand.

A batch that was put and not committed before a crash is committed by the next start (`archive.unfinished`), so the
order of puts is the order of commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from archive.catalog import KnownVersion
from archive.database import (
    create_file,
    generation_path,
    integrity_error,
    lock_writer,
    point_link,
    remove_file,
    sweep_generations,
)
from archive.findings import Finding, FindingKind, Progress, no_progress
from archive.journal import ConflictNoted, DecisionNoted, Entry, decode_entry
from archive.layout import JOURNAL, id_of, made_at
from archive.reindexing import record_of
from archive.segment_store import Comparer, SegmentStore
from archive.sql_catalog import SqlCatalog, catalog_in
from archive.sql_reader import open_reader
from runtime.clock import Clock, SystemClock
from runtime.errors import Fatal
from runtime.logs import get_logger
from schemas.identifiers import SegmentKey
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord, decode_placed
from segments.tar import SegmentDamaged

#: Records of one transaction.
BATCH_RECORDS = 500


@dataclass(slots=True, kw_only=True)
class Rebuilding:
    """What was read and what was found."""

    segments: int = 0
    journal_entries: int = 0
    records: int = 0
    findings: list[Finding] = field(default_factory=list)


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
        report = _Replay(store=store, path=fresh, equal=equal).run(progress)
        _check(catalog_path, fresh, accept_losses=accept_losses)
        point_link(catalog_path, fresh)
        return report
    except BaseException:
        remove_file(fresh)
        raise
    finally:
        lock.close()


class _IdClock:
    """Tells the time at which a segment was put, so that a rebuilt catalog does not say everything came today."""

    def __init__(self) -> None:
        self.moment = datetime.fromtimestamp(0, UTC)

    def be_at(self, key: str) -> None:
        with suppress(ValueError):
            self.moment = made_at(id_of(key))

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return self.moment.timestamp()

    def new_id(self) -> str:
        raise NotImplementedError("a replay makes no ids")


class _Replay:
    """One run through the archive."""

    def __init__(self, *, store: SegmentStore, path: Path, equal: Comparer) -> None:
        self._store = store
        self._path = path
        self._compare = equal
        self._clock = _IdClock()
        self._report = Rebuilding()
        self._keys = list(store.keys())
        self._present = set(self._keys)
        #: Segments that readable indexes name; found out only if one cannot be read.
        self._named: set[str] | None = None
        self._journal = dict(self._entries())
        self._conflicts = {
            (entry.tenant, entry.sop_instance_uid, entry.wire_sha256)
            for entry in self._journal.values()
            if isinstance(entry, ConflictNoted)
        }

    def run(self, progress: Progress) -> Rebuilding:
        catalog = catalog_in(self._path, clock=self._clock)
        try:
            for done, key in enumerate(self._keys):
                progress(done, len(self._keys))
                self._clock.be_at(key)
                if key.startswith(f"{JOURNAL}/"):
                    self._follow(catalog, key)
                else:
                    self._commit(catalog, key)
            progress(len(self._keys), len(self._keys))
        finally:
            catalog.close()
        return self._report

    def _entries(self) -> Iterator[tuple[str, Entry]]:
        for key in self._keys:
            if not key.startswith(f"{JOURNAL}/"):
                continue
            try:
                yield key, decode_entry(self._store.journal_entry(key))
            except (SegmentDamaged, ValueError) as error:
                self._note(FindingKind.JOURNAL_DAMAGED, key, str(error))

    def _commit(self, catalog: SqlCatalog, key: str) -> None:
        found = self._placed(key)
        placed = [one for one in found if self._is_present(one)]
        # A batch of which nothing is left is known all the same: the next start would take it for unfinished.
        for start in range(0, max(len(placed), int(bool(found))), BATCH_RECORDS):
            catalog.commit_batch(
                placed[start : start + BATCH_RECORDS],
                equal=self._equal,
                on_conflict=_already_noted,
                segments=[SegmentKey(key)],
            )
        self._report.segments += 1
        self._report.records += len(placed)

    def _placed(self, key: str) -> Sequence[PlacedRecord]:
        """The records of a segment: its index, or if that cannot be read, its members described again."""
        try:
            return [decode_placed(line) for line in self._store.index(key)]
        except (SegmentDamaged, ValueError) as error:
            again = [one for lost in (key, *self._unnamed_claims(key)) for one in self._described(lost)]
            kind = FindingKind.INDEX_REPLACED if again else FindingKind.INDEX_DAMAGED
            self._note(kind, key, str(error))
            return again

    def _described(self, key: str) -> Iterator[PlacedRecord]:
        recovery = self._store.members(key)
        for piece in recovery.torn:
            if not self._is_index(key, piece.offset, piece.size_bytes):
                self._note(FindingKind.MEMBER_DAMAGED, key, f"{piece.size_bytes} bytes at {piece.offset} do not verify")
        for member in recovery.members:
            location = MemberLocation(segment=key, offset=member.offset, size_bytes=member.size_bytes)
            try:
                yield PlacedRecord(record=record_of(self._store.read(location), member.provenance), location=location)
            except ValueError as error:
                self._note(FindingKind.MEMBER_UNREADABLE, key, str(error))

    def _unnamed_claims(self, before: str) -> Iterator[SegmentKey]:
        """Claim checks that may have been adopted by the segment `before`, whose index is damaged.

        Those made earlier than it that no readable index names, each once. A duplicate among them changes nothing.
        """
        if self._named is None:
            self._named = set(self._indexed())
        for key in self._keys:
            if id_of(key) >= id_of(before) or key.startswith(f"{JOURNAL}/") or key in self._named:
                continue
            if self._is_claim(key):
                self._named.add(key)
                yield key

    def _indexed(self) -> Iterator[str]:
        """The segments that readable indexes name."""
        for key in self._keys:
            with suppress(SegmentDamaged, ValueError):
                if not key.startswith(f"{JOURNAL}/"):
                    yield from (decode_placed(line).location.segment for line in self._store.index(key))

    def _is_claim(self, key: str) -> bool:
        with suppress(SegmentDamaged):
            return not self._store.index(key)
        return False

    def _is_index(self, key: str, offset: int, size_bytes: int) -> bool:
        """Whether a piece that does not verify is the index, whose records are being made again."""
        piece = MemberLocation(segment=key, offset=offset, size_bytes=size_bytes)
        name = f"PaxHeaders/{id_of(key)}.index".encode()
        return size_bytes >= len(name) and self._store.read(piece, 0, len(name)) == name

    def _is_present(self, placed: PlacedRecord) -> bool:
        """Whether the bytes are there: those of a large duplicate are removed once it is known to be one."""
        if placed.location.segment in self._present:
            return True
        self._note(FindingKind.SEGMENT_UNREFERRED, placed.location.segment, "named by an index, collected since")
        return False

    def _equal(self, placed: PlacedRecord, version: KnownVersion) -> bool:
        assert isinstance(placed.record, InstanceRecord)
        record = placed.record
        noted = (record.attributes.tenant, record.instance.sop_instance_uid, record.wire_sha256) in self._conflicts
        return not noted and self._compare(placed.location, version.location)

    def _follow(self, catalog: SqlCatalog, key: str) -> None:
        entry = self._journal.get(key)
        if isinstance(entry, ConflictNoted):
            catalog.keep_current(entry.tenant, entry.sop_instance_uid, entry.current_wire_sha256)
        elif isinstance(entry, DecisionNoted) and not _execute(catalog, entry):
            self._note(FindingKind.DECISION_WITHOUT_OBJECT, key, type(entry.decision).__name__)
        self._report.journal_entries += 1

    def _note(self, kind: FindingKind, key: str, detail: str) -> None:
        self._report.findings.append(Finding(kind=kind, segment=key, detail=detail))


def _execute(catalog: SqlCatalog, entry: DecisionNoted) -> bool:
    return catalog.apply(entry.decision, decision_id=entry.id, decided_at=entry.at, decided_by=entry.by)


def _already_noted(placed: PlacedRecord, current: KnownVersion) -> None:
    """The journal holds this verdict: it is where it comes from."""


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
