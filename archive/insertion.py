"""The set-based statements of a commit: parents first, then the rows that decide, then versions.

Every insert leaves out what is there already and says what it inserted, so that two writers could not both believe to
be first (SQLite has one writer; the same statements serve a database with several).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select

from archive import schema
from archive.catalog import InstanceState, KnownVersion
from archive.database import ROWS_PER_STATEMENT, insert_ignoring
from archive.folding import folded_name, order_of, search_text
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord, encode_placed

#: Tenant and SOP Instance UID.
SopKey = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class HeldInstance:
    """An instance and its versions, as the transaction sees them."""

    instance_id: int
    study_id: int
    series_id: int
    versions: list[KnownVersion] = field(default_factory=list)

    @property
    def current(self) -> KnownVersion:
        """The version that readers see."""
        return next(version for version in self.versions if version.current)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parents:
    """The rows above an instance."""

    tenant_id: int
    study_id: int
    series_id: int


def key_of(placed: PlacedRecord) -> SopKey:
    """Under what an instance is unique."""
    record = filed(placed)
    return record.attributes.tenant, record.instance.sop_instance_uid


def filed(placed: PlacedRecord) -> InstanceRecord:
    """The record of an instance that is not quarantined."""
    assert isinstance(placed.record, InstanceRecord)
    return placed.record


# ---- what is there -------------------------------------------------------------------------------------------------


def held(connection: Connection, keys: Iterable[SopKey]) -> dict[SopKey, HeldInstance]:
    """The instances there are under `keys`, with all their versions in order of commit."""
    by_tenant: dict[str, list[str]] = {}
    for tenant, uid in keys:
        by_tenant.setdefault(tenant, []).append(uid)
    found: dict[SopKey, HeldInstance] = {}
    for tenant, uids in by_tenant.items():
        for start in range(0, len(uids), ROWS_PER_STATEMENT):
            _hold(connection, tenant, uids[start : start + ROWS_PER_STATEMENT], found)
    return found


def _hold(connection: Connection, tenant: str, uids: list[str], found: dict[SopKey, HeldInstance]) -> None:
    sop, instance, version, segment = schema.sop, schema.instance, schema.version, schema.segment
    beside = (instance.c.study_id == sop.c.study_id) & (instance.c.sop_instance_uid == sop.c.sop_instance_uid)
    rows = (
        select(instance, version, segment.c.key)
        .select_from(sop.join(schema.tenant).join(instance, beside).join(version).join(segment))
        .where(schema.tenant.c.name == tenant, sop.c.sop_instance_uid.in_(uids))
        .order_by(version.c.instance_id, version.c.number)
    )
    for row in connection.execute(rows):
        at = row._mapping
        fresh = HeldInstance(
            instance_id=at[instance.c.id], study_id=at[instance.c.study_id], series_id=at[instance.c.series_id]
        )
        one = found.setdefault((tenant, at[instance.c.sop_instance_uid]), fresh)
        one.versions.append(known_version(row))


def known_version(row: Row[Any]) -> KnownVersion:
    """A version from a row that has the columns of `version`, its instance and its segment's key."""
    at, version = row._mapping, schema.version
    return KnownVersion(
        wire_sha256=at[version.c.wire_sha256],
        study_instance_uid=at[version.c.study_instance_uid],
        current=at[version.c.number] == at[schema.instance.c.current_number],
        location=MemberLocation(
            segment=at[schema.segment.c.key], offset=at[version.c.file_offset], size_bytes=at[version.c.size_bytes]
        ),
    )


# ---- parents -------------------------------------------------------------------------------------------------------


def ensure(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: tuple[str, ...]
) -> dict[Any, int]:
    """Ids of the rows with these keys, inserting those that are missing; by key, in the columns' order.

    The first column of `key` may be shared by many rows; the last one tells them apart.
    """
    wanted = {tuple(row[name] for name in key): row for row in rows}
    ids = _ids(connection, table, wanted, key)
    missing = [row for at, row in wanted.items() if at not in ids]
    if missing:
        connection.execute(insert_ignoring(connection, table), missing)
        ids.update(_ids(connection, table, [at for at in wanted if at not in ids], key))
    return ids


def _ids(connection: Connection, table: Table, keys: Iterable[tuple[Any, ...]], key: tuple[str, ...]) -> dict[Any, int]:
    columns, wanted = [table.c[name] for name in key], list(keys)
    ids: dict[Any, int] = {}
    for start in range(0, len(wanted), ROWS_PER_STATEMENT):
        piece = wanted[start : start + ROWS_PER_STATEMENT]
        parts = [column.in_({at[place] for at in piece}) for place, column in enumerate(columns)]
        for row in connection.execute(select(table.c.id, *columns).where(*parts)):
            ids[tuple(row[1:])] = row[0]
    return ids


def tenants(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of tenants by name."""
    ids = ensure(connection, schema.tenant, [{"name": name} for name in names], ("name",))
    return {name: row for (name,), row in ids.items()}


def parents(connection: Connection, batch: Sequence[PlacedRecord], tenant_ids: Mapping[str, int]) -> list[Parents]:
    """The rows above each instance of `batch`; a study's attributes are those of its first instance."""
    patient_ids = _patients(connection, batch, tenant_ids)
    studies: dict[tuple[int, str], dict[str, Any]] = {}
    for placed in batch:
        record = filed(placed)
        tenant_id = tenant_ids[record.attributes.tenant]
        at = (tenant_id, record.study.study_instance_uid)
        studies.setdefault(at, _study_row(record, tenant_id, patient_ids.get(_person(record, tenant_id))))
    study_ids = ensure(connection, schema.study, list(studies.values()), ("tenant_id", "study_instance_uid"))
    keys: list[tuple[int, int, tuple[int, str]]] = []
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for placed in batch:
        record = filed(placed)
        tenant_id = tenant_ids[record.attributes.tenant]
        study_id = study_ids[tenant_id, record.study.study_instance_uid]
        series_key = (study_id, record.series.series_instance_uid)
        rows.setdefault(series_key, _series_row(record, study_id))
        keys.append((tenant_id, study_id, series_key))
    series_ids = ensure(connection, schema.series, list(rows.values()), ("study_id", "series_instance_uid"))
    return [Parents(tenant_id=tenant, study_id=study, series_id=series_ids[key]) for tenant, study, key in keys]


_Person = tuple[int, str, str]


def _person(record: InstanceRecord, tenant_id: int) -> _Person:
    """Who an instance says the patient is: an identifier within its issuer, within a tenant."""
    return tenant_id, _text(record.patient.patient_id), _text(record.patient.issuer)


def _patients(
    connection: Connection, batch: Sequence[PlacedRecord], tenant_ids: Mapping[str, int]
) -> dict[_Person, int]:
    """Patients by identifier. An instance without Patient ID belongs to none: nobody is merged by absence."""
    identifier = schema.patient_identifier
    wanted = {
        person: filed(placed)
        for placed in reversed(batch)
        if (person := _person(filed(placed), tenant_ids[filed(placed).attributes.tenant]))[1]
    }
    columns = (identifier.c.tenant_id, identifier.c.value, identifier.c.issuer_resolved, identifier.c.patient_id)
    found: dict[_Person, int] = {}
    for person in wanted:
        row = connection.execute(
            select(*columns).where(*(c == v for c, v in zip(columns, person, strict=False)))
        ).first()
        found[person] = row[3] if row else _new_patient(connection, person, wanted[person].attributes.time)
    return found


def _new_patient(connection: Connection, person: _Person, created_at: str) -> int:
    tenant_id, value, issuer = person
    patient = insert(schema.patient).values(tenant_id=tenant_id, created_at=created_at).returning(schema.patient.c.id)
    patient_id: int = connection.execute(patient).scalar_one()
    identifier = {
        "tenant_id": tenant_id,
        "patient_id": patient_id,
        "value": value,
        "issuer_received": issuer,
        "issuer_resolved": issuer,
        "type": "MR",
        "status": "received",
    }
    connection.execute(insert(schema.patient_identifier), identifier)
    return patient_id


# ---- rows ----------------------------------------------------------------------------------------------------------


def _text(value: str) -> str:
    """`value` as a column can hold it: a NUL, which some databases refuse, is left out (the record keeps it)."""
    return value.replace("\0", "")


def _study_row(record: InstanceRecord, tenant_id: int, patient_id: int | None) -> dict[str, Any]:
    study, person = record.study, record.patient
    values = {
        "study_instance_uid": study.study_instance_uid,
        "study_date": study.study_date,
        "study_time": study.study_time,
        "study_id": study.study_id,
        "accession_number": study.accession_number,
        "accession_issuer": study.accession_issuer,
        "study_description": study.study_description,
        "referring_physician_name": study.referring_physician_name,
        "referring_physician_folded": folded_name(study.referring_physician_name),
        "institution_name": study.institution_name,
        "patient_id": person.patient_id,
        "patient_id_issuer": person.issuer,
        "patient_name": person.name,
        "patient_name_folded": folded_name(person.name),
        "patient_birth_date": person.birth_date,
        "patient_sex": person.sex,
        "search_text": search_text(person.name, person.patient_id, study.accession_number),
    }
    row: dict[str, Any] = {name: _text(value) for name, value in values.items()}
    return {**row, "tenant_id": tenant_id, "patient_row": patient_id}


def _series_row(record: InstanceRecord, study_id: int) -> dict[str, Any]:
    series = record.series
    names = (
        "series_instance_uid", "modality", "series_number", "series_description", "series_date", "series_time",
        "body_part_examined", "protocol_name", "station_name", "pps_start_date", "pps_start_time",
        "scheduled_procedure_step_id", "requested_procedure_id",
    )  # fmt: skip
    row: dict[str, Any] = {name: _text(getattr(series, name)) for name in names}
    return {**row, "study_id": study_id, "series_order": order_of(series.series_number)}


def instance_row(record: InstanceRecord) -> dict[str, Any]:
    """The columns of `instance` that describe its current version."""
    one = record.instance
    return {
        "sop_class_uid": _text(one.sop_class_uid),
        "instance_number": _text(one.instance_number),
        "instance_order": order_of(one.instance_number),
        "number_of_frames": one.number_of_frames,
        "rows": one.rows,
        "columns": one.columns,
        "bits_allocated": one.bits_allocated,
    }


# ---- instances and versions ----------------------------------------------------------------------------------------


def insert_first(
    connection: Connection, batch: Mapping[SopKey, PlacedRecord], above: Sequence[Parents]
) -> dict[SopKey, HeldInstance]:
    """Insert instances under UIDs believed new; gives those that were, without versions yet."""
    names = {parents.tenant_id: tenant for (tenant, _), parents in zip(batch, above, strict=True)}
    rows = [
        {"tenant_id": parents.tenant_id, "sop_instance_uid": uid, "study_id": parents.study_id}
        for (_, uid), parents in zip(batch, above, strict=True)
    ]
    returning = insert_ignoring(connection, schema.sop).returning(schema.sop.c.tenant_id, schema.sop.c.sop_instance_uid)
    won = {(names[tenant_id], uid) for tenant_id, uid in connection.execute(returning, rows)}
    fresh = [
        {
            **instance_row(filed(placed)),
            "study_id": parents.study_id,
            "series_id": parents.series_id,
            "sop_instance_uid": key[1],
            "state": InstanceState.VISIBLE.value,
            "version_count": 1,
            "current_number": 1,
        }
        for (key, placed), parents in zip(batch.items(), above, strict=True)
        if key in won
    ]
    ids = _insert_instances(connection, fresh)
    return {
        key: HeldInstance(
            instance_id=ids[parents.study_id, key[1]], study_id=parents.study_id, series_id=parents.series_id
        )
        for key, parents in zip(batch, above, strict=True)
        if key in won
    }


def _insert_instances(connection: Connection, rows: list[dict[str, Any]]) -> dict[tuple[int, str], int]:
    if not rows:
        return {}
    instance = schema.instance
    returning = insert(instance).returning(instance.c.study_id, instance.c.sop_instance_uid, instance.c.id)
    return {(study_id, uid): row for study_id, uid, row in connection.execute(returning, rows)}


def version_row(
    placed: PlacedRecord, *, instance_id: int, number: int, segment_id: int, verdict: str, committed_at: str
) -> dict[str, Any]:
    """The columns of `version`."""
    record = filed(placed)
    return {
        "instance_id": instance_id,
        "number": number,
        "verdict": verdict,
        "message_id": record.attributes.id,
        "wire_sha256": record.wire_sha256,
        "pixel_sha256": record.pixel_sha256,
        "study_instance_uid": record.study.study_instance_uid,
        "series_instance_uid": record.series.series_instance_uid,
        "source": record.attributes.source,
        "received_at": record.attributes.time,
        "committed_at": committed_at,
        "received_transfer_syntax": record.received_transfer_syntax,
        "stored_transfer_syntax": record.stored_transfer_syntax,
        "kept_reason": record.kept_reason or "",
        "warnings": ",".join(record.warnings),
        "segment_id": segment_id,
        "file_offset": placed.location.offset,
        "size_bytes": placed.location.size_bytes,
        "pixel_offset": record.pixel_offset,
        "record": encode_placed(placed).decode(),
    }


def segments(
    connection: Connection, keys: Iterable[str], tenant_ids: Mapping[str, int], committed_at: str
) -> dict[str, int]:
    """Ids of segments by key; a key begins with its tenant."""
    rows = [{"tenant_id": tenant_ids[key.partition("/")[0]], "key": key, "committed_at": committed_at} for key in keys]
    ids = ensure(connection, schema.segment, rows, ("key",))
    return {key: row for (key,), row in ids.items()}
