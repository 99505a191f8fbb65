"""The writing end of the catalog: one transaction a batch, in which New, Same and Conflict are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sqlalchemy import Connection, Engine, bindparam, insert, select, update

from archive import decided, fate, incarnation, insertion, outbox, relocation, schema
from archive.catalog import (
    Conflict,
    Equal,
    KnownVersion,
    New,
    OnConflict,
    OnSame,
    Quarantined,
    Same,
    Verdict,
    comparable,
)
from archive.database import (
    create_file,
    generation_path,
    lock_writer,
    point_link,
    reader_engine,
    sweep_generations,
    writer_engine,
)
from archive.errors import mapped_errors
from archive.incarnation import Incarnation
from archive.insertion import HeldInstance, SopKey, filed, key_of
from archive.revisions import bring_on, check_revision
from archive.tally import Tally
from archive.wording import insert_replacing, is_postgres, stay_awake
from runtime.clock import Clock, SystemClock, rfc3339
from runtime.faults import reach
from schemas.decisions import Decision
from schemas.identifiers import SegmentKey
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord, QuarantineRecord

if TYPE_CHECKING:  # the driver takes time to load, and an embedded catalog has no use for it
    from archive.postgres import Bounds


def open_catalog(path: Path, *, clock: Clock | None = None) -> SqlCatalog:
    """The catalog in the SQLite file at `path` for writing, made if there is none, brought on if it is older.

    Raises:
        Misconfigured: another process writes it, or it has another revision.
        Retryable, OutOfSpace: the disk or the database is not available.
    """
    clock = clock or SystemClock()
    lock = lock_writer(path)
    try:
        sweep_generations(path)
        if not path.exists():
            fresh = generation_path(path, clock)
            create_file(fresh)
            point_link(path, fresh)
        return catalog_in(path.resolve(), clock=clock, lock=lock)
    except BaseException:
        lock.close()
        raise


def catalog_in(path: Path, *, clock: Clock, lock: IO[bytes] | None = None) -> SqlCatalog:
    """The catalog in the one file at `path`, which is there and which nobody else writes.

    Raises:
        Misconfigured: it has another revision.
        Fatal: it is damaged.
    """
    engine = writer_engine(path)
    try:
        with mapped_errors():
            bring_on(engine)
            with engine.connect() as connection:
                check_revision(connection)
    except BaseException:
        engine.dispose()
        raise
    return SqlCatalog(engine, reader_engine(path), clock=clock, lock=lock)


def open_postgres_catalog(
    url: str, *, bounds: Bounds | None = None, clock: Clock | None = None, tells: bool = True
) -> SqlCatalog:
    """The catalog in the PostgreSQL database at `url` for writing, beside any number of other processes.

    Raises:
        Misconfigured: the server is not reachable, refuses us, or its tables are not ours; the message says what to do.
    """
    from archive import postgres

    bounds = bounds or postgres.Bounds()
    engine = postgres.checked(postgres.writer_engine(url, bounds), url)
    return SqlCatalog(engine, postgres.reader_engine(url, bounds), clock=clock or SystemClock(), tells=tells)


class SqlCatalog:
    """`archive.catalog.Catalog` on SQLAlchemy Core; closed by its owner.

    One thread commits and applies; `known`, `has_committed` and the attempts may be asked for from any thread
    meanwhile and see what was committed before.
    """

    def __init__(
        self, engine: Engine, hints: Engine, *, clock: Clock, lock: IO[bytes] | None = None, tells: bool = True
    ) -> None:
        """`engine` writes, `hints` reads; both are this catalog's from now on, and so is `lock`.

        `tells`: whether events are queued for other systems; a rebuild has nothing new to tell.
        """
        self._tells = tells
        self._engine = engine
        self._hints = hints
        self._clock = clock
        self._lock = lock

    def known(self, tenant: str, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[KnownVersion]]:
        """See `Catalog.known`."""
        with mapped_errors(), self._hints.connect() as connection:
            found = insertion.held(connection, [(tenant, uid) for uid in dict.fromkeys(sop_instance_uids)])
        return {uid: held.versions for (_, uid), held in found.items()}

    def commit_batch(
        self,
        placed: Sequence[PlacedRecord],
        *,
        equal: Equal,
        on_conflict: OnConflict,
        on_same: OnSame | None = None,
        segments: Sequence[SegmentKey] = (),
    ) -> Sequence[Verdict]:
        """See `Catalog.commit_batch`; `placed` may be of several tenants, or nothing but its segments be known."""
        if not placed and not segments:
            return []
        tenants = {one.record.attributes.tenant for one in placed} | {key.partition("/")[0] for key in segments}
        with mapped_errors(), self._engine.begin() as connection:
            batch = _Batch(
                connection=connection,
                committed_at=rfc3339(self._clock.now()),
                equal=equal,
                on_conflict=on_conflict,
                tenant_ids=insertion.tenants(connection, tenants),
                tells=self._tells,
            )
            verdicts = batch.judge(placed)
            if on_same is not None and batch.same:
                stay_awake(connection)
                on_same(batch.same)
            batch.write(segments)
            reach("catalog.inserted")
        reach("catalog.committed")
        return verdicts

    def relocate(self, placed: PlacedRecord, *, lost: MemberLocation) -> bool:
        """See `Catalog.relocate`."""
        with mapped_errors(), self._engine.begin() as connection:
            return relocation.relocate(connection, placed, lost, rfc3339(self._clock.now()))

    def has_committed(self, segment: str) -> bool:
        """See `Catalog.has_committed`."""
        table = schema.segment
        with mapped_errors(), self._hints.connect() as connection:
            return connection.execute(select(table.c.id).where(table.c.key == segment)).first() is not None

    def apply(self, decision: Decision, *, decision_id: str, decided_at: str, decided_by: str) -> bool:
        """See `Catalog.apply`."""
        made = decided.Made(decision=decision, id=decision_id, at=decided_at, by=decided_by)
        with mapped_errors(), self._engine.begin() as connection:
            done = decided.apply(connection, made)
            reach("catalog.inserted")
        reach("catalog.committed")
        return done

    def load_attempts(self, stream: str) -> str | None:
        """See `Catalog.load_attempts`."""
        table = schema.attempt
        with mapped_errors(), self._engine.connect() as connection:
            page: str | None = connection.scalar(select(table.c.page).where(table.c.stream == stream))
        return page

    def save_attempts(self, stream: str, page: str) -> None:
        """See `Catalog.save_attempts`."""
        with mapped_errors(), self._engine.begin() as connection:
            connection.execute(insert_replacing(connection, schema.attempt), {"stream": stream, "page": page})

    def incarnation(self) -> Incarnation:
        """Which life of the catalog this is, and its tide; see `archive.incarnation`."""
        with mapped_errors(), self._hints.connect() as connection:
            return incarnation.read(connection)

    def raise_tide(self) -> int:
        """Raise the tide, durably; gives the new one."""
        with mapped_errors(), self._engine.begin() as connection:
            return incarnation.raise_tide(connection)

    def keep_current(self, tenant: str, sop_instance_uid: str, wire_sha256: str) -> bool:
        """Make a version current because the journal says it was, when another one stands first in the archive."""
        with mapped_errors(), self._engine.begin() as connection:
            return decided.use_digest(connection, tenant, sop_instance_uid, wire_sha256)

    def is_empty(self) -> bool:
        """Whether nothing was ever committed."""
        with mapped_errors(), self._hints.connect() as connection:
            return connection.execute(select(schema.tenant.c.id).limit(1)).first() is None

    def close(self) -> None:
        """See `Catalog.close`."""
        self._hints.dispose()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()


@dataclass(slots=True, kw_only=True)
class _Batch:
    """One commit while it is being made."""

    connection: Connection
    committed_at: str
    equal: Equal
    on_conflict: OnConflict
    tenant_ids: Mapping[str, int]
    #: Whether other systems are told.
    tells: bool
    held: dict[SopKey, HeldInstance] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    #: What is to be inserted as versions: the record, its instance, its number, its verdict.
    versions: list[tuple[PlacedRecord, HeldInstance, int, Verdict]] = field(default_factory=list)
    #: Quarantine entries that were opened, each with its tenant's row.
    opened: list[tuple[int, QuarantineRecord]] = field(default_factory=list)
    #: What came to Same although another message brought it.
    same: list[PlacedRecord] = field(default_factory=list)

    def judge(self, placed: Sequence[PlacedRecord]) -> list[Verdict]:
        """The verdict of each record, in order; versions and counts wait for `write`."""
        instances = [one for one in placed if isinstance(one.record, InstanceRecord)]
        self.held = insertion.held(self.connection, dict.fromkeys(map(key_of, instances)))
        firsts = self._insert_firsts(instances)
        if is_postgres(self.connection):
            self._lock_disputed(instances, firsts)
        quarantined = [one for one in placed if isinstance(one.record, QuarantineRecord)]
        self._quarantine(quarantined)
        return [self._verdict(one, firsts) for one in placed]

    def write(self, segments: Sequence[SegmentKey]) -> None:
        """Insert segments, versions, conflicts, counts and events."""
        referred = {one.location.segment for one, _, _, _ in self.versions}
        keys = {*segments, *referred}
        segment_ids = fate.enliven(
            self.connection, keys, self.tenant_ids, self.committed_at, referred=keys if self.versions else ()
        )
        if self.versions:
            self._insert_versions(segment_ids)
        self._write_outbox()
        self.tally.write(self.connection)

    def _insert_firsts(self, instances: Sequence[PlacedRecord]) -> dict[SopKey, PlacedRecord]:
        """Insert the first record of each unknown UID; gives those that are now the first content under their UID."""
        firsts: dict[SopKey, PlacedRecord] = {}
        for one in instances:
            if key_of(one) not in self.held:
                firsts.setdefault(key_of(one), one)
        if not firsts:
            return {}
        above = insertion.parents(self.connection, list(firsts.values()), self.tenant_ids, self.tally)
        inserted = insertion.insert_first(self.connection, firsts, above)
        if lost := [key for key in firsts if key not in inserted]:
            self.held.update(insertion.held(self.connection, lost))
        self.held.update(inserted)
        return {key: firsts[key] for key in inserted}

    def _lock_disputed(self, instances: Sequence[PlacedRecord], firsts: Mapping[SopKey, PlacedRecord]) -> None:
        """Keep other transactions from adding versions where this one may; then read what they added until now.

        An instance whose versions have all that this batch brings needs no lock: no version ever goes away.
        """
        disputed = {
            key: self.held[key]
            for one in instances
            if (key := key_of(one)) not in firsts and not _with(self.held[key], filed(one).wire_sha256)
        }
        if disputed:
            insertion.lock_instances(self.connection, disputed.values())
            self.held.update(insertion.held(self.connection, disputed))

    def _verdict(self, one: PlacedRecord, firsts: Mapping[SopKey, PlacedRecord]) -> Verdict:
        if isinstance(one.record, QuarantineRecord):
            return Quarantined()
        key = key_of(one)
        held = self.held[key]
        if firsts.get(key) is one:
            return self._keep(one, held, New())
        version = _with(held, one.record.wire_sha256) or next(
            (version for version in comparable(held.versions) if self._are_equal(one, version)), None
        )
        if version is not None:
            if version.message_id != insertion.stored_text(one.record.attributes.id):
                self.same.append(one)
            return Same()
        stay_awake(self.connection)
        self.on_conflict(one, held.current)
        return self._keep(one, held, Conflict(current_wire_sha256=held.current.wire_sha256))

    def _are_equal(self, one: PlacedRecord, version: KnownVersion) -> bool:
        stay_awake(self.connection)
        return self.equal(one, version)

    def _keep(self, one: PlacedRecord, held: HeldInstance, verdict: Verdict) -> Verdict:
        record, is_new = filed(one), isinstance(verdict, New)
        held.versions.append(
            KnownVersion(
                wire_sha256=record.wire_sha256,
                study_instance_uid=record.study.study_instance_uid,
                current=is_new,
                location=one.location,
                message_id=insertion.stored_text(record.attributes.id),
            )
        )
        number = len(held.versions)
        self.versions.append((one, held, number, verdict))
        self.tally.add(
            study_id=held.study_id,
            series_id=held.series_id,
            instances=int(is_new),
            conflicts=int(number == 2),  # an instance is in conflict once, however many versions it has
            received_at=record.attributes.time,
        )
        tenant_id = self.tenant_ids[record.attributes.tenant]
        self.tally.count(tenant_id, "instances", int(is_new))
        self.tally.count(tenant_id, "conflicts", int(number == 2))
        self.tally.count(tenant_id, "versions")
        self.tally.count(tenant_id, "bytes", one.location.size_bytes)
        return verdict

    def _insert_versions(self, segment_ids: Mapping[str, int]) -> None:
        rows = [
            insertion.version_row(
                one,
                instance_id=held.instance_id,
                number=number,
                segment_id=segment_ids[one.location.segment],
                verdict=type(verdict).__name__.lower(),
                committed_at=self.committed_at,
            )
            for one, held, number, verdict in self.versions
        ]
        # Not as arrays: the driver would mark every quote of every record.
        self.connection.execute(insert(schema.version), rows)
        newest = {held.instance_id: n for _, held, n, verdict in self.versions if isinstance(verdict, Conflict)}
        if newest:
            self._mark_conflicts(newest)

    def _mark_conflicts(self, newest: Mapping[int, int]) -> None:
        """Say of instances, by id, which number their newest further version has."""
        version, instance = schema.version, schema.instance
        here = (version.c.instance_id == bindparam("at")) & (version.c.number == bindparam("newest"))
        found = select(version.c.id).where(here).scalar_subquery()
        values = {"version_count": bindparam("newest"), "conflict_version_id": found}
        rows = [{"at": instance_id, "newest": number} for instance_id, number in sorted(newest.items())]
        self.connection.execute(update(instance).where(instance.c.id == bindparam("at")).values(values), rows)

    def _quarantine(self, batch: Sequence[PlacedRecord]) -> None:
        opened = decided.enter_quarantine(self.connection, batch, self.tenant_ids, self.committed_at)
        for tenant_id, record in opened:
            self.tally.count(tenant_id, "quarantined")
            self.opened.append((tenant_id, record))

    def _write_outbox(self) -> None:
        changed: dict[tuple[int, str, str], list[InstanceRecord]] = {}
        for one, held, _, verdict in self.versions:
            record = filed(one)
            key = (held.study_id, record.attributes.tenant, type(verdict).__name__.lower())
            changed.setdefault(key, []).append(record)
        changes = [
            outbox.Change(study_id=study_id, tenant_id=self.tenant_ids[tenant], verdict=verdict, records=records)
            for (study_id, tenant, verdict), records in changed.items()
        ]
        if self.tells:
            outbox.write(self.connection, changes, self.opened, self.committed_at)


def _with(held: HeldInstance, wire_sha256: str) -> KnownVersion | None:
    return next((version for version in held.versions if version.wire_sha256 == wire_sha256), None)
