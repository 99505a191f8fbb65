"""The writing end of the catalog: one transaction a batch, in which New, Same and Conflict are decided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from archive import decided, insertion, schema
from archive.catalog import Conflict, Equal, KnownVersion, New, OnConflict, Quarantined, Same, Verdict
from archive.database import (
    check_revision,
    create_file,
    generation_path,
    lock_writer,
    mapped_errors,
    point_link,
    reader_engine,
    sweep_generations,
    writer_engine,
)
from archive.insertion import HeldInstance, SopKey, filed, key_of
from archive.tally import Tally
from runtime.clock import Clock, SystemClock, rfc3339
from runtime.faults import reach
from schemas.decisions import Decision
from schemas.identifiers import SegmentKey
from schemas.record import InstanceRecord, PlacedRecord, QuarantineRecord

#: Events kept for other systems; the oldest go first.
OUTBOX_ROWS_MAX: Final = 10_000
STUDY_CHANGED: Final = "sansfilm.study.changed.v1"


def open_catalog(path: Path, *, clock: Clock | None = None) -> SqlCatalog:
    """The catalog at `path` for writing, made if there is none.

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
        return SqlCatalog(path.resolve(), clock=clock, lock=lock)
    except BaseException:
        lock.close()
        raise


class SqlCatalog:
    """`archive.catalog.Catalog` on SQLAlchemy Core; closed by its owner.

    One thread commits and applies, on the one connection that writes; `known` may be asked from any thread meanwhile
    and sees what was committed before.
    """

    def __init__(self, path: Path, *, clock: Clock, lock: IO[bytes] | None = None) -> None:
        self._engine: Engine = writer_engine(path)
        self._hints: Engine = reader_engine(path)
        self._clock = clock
        self._lock = lock
        try:
            with mapped_errors(), self._engine.connect() as connection:
                check_revision(connection)
        except BaseException:
            self._engine.dispose()
            raise

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
        segments: Sequence[SegmentKey] = (),
    ) -> Sequence[Verdict]:
        """See `Catalog.commit_batch`; `placed` may be of several tenants."""
        if not placed:
            return []
        with mapped_errors(), self._engine.begin() as connection:
            batch = _Batch(
                connection=connection,
                committed_at=rfc3339(self._clock.now()),
                equal=equal,
                on_conflict=on_conflict,
                tenant_ids=insertion.tenants(connection, [one.record.attributes.tenant for one in placed]),
            )
            verdicts = batch.judge(placed)
            batch.write(segments)
            reach("catalog.inserted")
        reach("catalog.committed")
        return verdicts

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

    def keep_current(self, tenant: str, sop_instance_uid: str, wire_sha256: str) -> bool:
        """Make a version current because the journal says it was, when another one stands first in the archive."""
        with mapped_errors(), self._engine.begin() as connection:
            return decided.use_digest(connection, tenant, sop_instance_uid, wire_sha256)

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
    held: dict[SopKey, HeldInstance] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    #: What is to be inserted as versions: the record, its instance, its number, its verdict.
    versions: list[tuple[PlacedRecord, HeldInstance, int, Verdict]] = field(default_factory=list)

    def judge(self, placed: Sequence[PlacedRecord]) -> list[Verdict]:
        """The verdict of each record, in order; versions and counts wait for `write`."""
        instances = [one for one in placed if isinstance(one.record, InstanceRecord)]
        self.held = insertion.held(self.connection, dict.fromkeys(map(key_of, instances)))
        firsts = self._insert_firsts(instances)
        quarantined = [one for one in placed if isinstance(one.record, QuarantineRecord)]
        self._quarantine(quarantined)
        return [self._verdict(one, firsts) for one in placed]

    def write(self, segments: Sequence[SegmentKey]) -> None:
        """Insert segments, versions, conflicts, counts and events."""
        keys = dict.fromkeys([*segments, *(one.location.segment for one, _, _, _ in self.versions)])
        segment_ids = insertion.segments(self.connection, keys, self.tenant_ids, self.committed_at)
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
        above = insertion.parents(self.connection, list(firsts.values()), self.tenant_ids)
        inserted = insertion.insert_first(self.connection, firsts, above)
        if lost := [key for key in firsts if key not in inserted]:
            self.held.update(insertion.held(self.connection, lost))
        self.held.update(inserted)
        return {key: firsts[key] for key in inserted}

    def _verdict(self, one: PlacedRecord, firsts: Mapping[SopKey, PlacedRecord]) -> Verdict:
        if isinstance(one.record, QuarantineRecord):
            return Quarantined()
        key = key_of(one)
        held = self.held[key]
        if firsts.get(key) is one:
            return self._keep(one, held, New())
        if any(version.wire_sha256 == one.record.wire_sha256 for version in held.versions):
            return Same()
        if any(self.equal(one, version) for version in held.versions):
            return Same()
        self.on_conflict(one, held.current)
        return self._keep(one, held, Conflict(current_wire_sha256=held.current.wire_sha256))

    def _keep(self, one: PlacedRecord, held: HeldInstance, verdict: Verdict) -> Verdict:
        record, is_new = filed(one), isinstance(verdict, New)
        held.versions.append(
            KnownVersion(
                wire_sha256=record.wire_sha256,
                study_instance_uid=record.study.study_instance_uid,
                current=is_new,
                location=one.location,
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
        self.connection.execute(insert(schema.version), rows)
        for _, held, number, verdict in self.versions:
            if isinstance(verdict, Conflict):
                self._mark_conflict(held.instance_id, number)

    def _mark_conflict(self, instance_id: int, number: int) -> None:
        version, instance = schema.version, schema.instance
        newest = select(version.c.id).where(version.c.instance_id == instance_id, version.c.number == number)
        values = {"version_count": number, "conflict_version_id": newest.scalar_subquery()}
        self.connection.execute(update(instance).where(instance.c.id == instance_id).values(values))

    def _quarantine(self, batch: Sequence[PlacedRecord]) -> None:
        for one in batch:
            tenant_id = self.tenant_ids[one.record.attributes.tenant]
            opened = decided.enter_quarantine(self.connection, one, tenant_id, self.committed_at)
            self.tally.count(tenant_id, "quarantined", int(opened))

    def _write_outbox(self) -> None:
        changed: Counter[tuple[int, str, str]] = Counter()
        for one, held, _, verdict in self.versions:
            record = filed(one)
            changed[held.study_id, record.attributes.tenant, type(verdict).__name__.lower()] += 1
        if not changed:
            return
        study = schema.study
        ids = {study_id for study_id, _, _ in changed}
        uids = dict(
            self.connection.execute(select(study.c.id, study.c.study_instance_uid).where(study.c.id.in_(ids))).all()
        )
        rows: list[dict[str, Any]] = [
            {
                "tenant_id": self.tenant_ids[tenant],
                "type": STUDY_CHANGED,
                "created_at": self.committed_at,
                "payload": json.dumps({"study_instance_uid": uids[study_id], "verdict": verdict, "instances": count}),
            }
            for (study_id, tenant, verdict), count in changed.items()
        ]
        self.connection.execute(insert(schema.outbox), rows)
        newest = select(func.max(schema.outbox.c.id) - OUTBOX_ROWS_MAX).scalar_subquery()
        self.connection.execute(delete(schema.outbox).where(schema.outbox.c.id <= newest))
