"""The set-based statements of a commit: parents first, then the rows that decide, then versions.

Every insert leaves out what is there already and says what it inserted, so that two writers could not both believe to
be first. Rows are inserted in the order of their keys, so that two writers wait for each other in one direction only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, insert, select

from archive import schema
from archive.catalog import InstanceState, KnownVersion
from archive.folding import folded_name, order_of, search_text
from archive.studies import gathered
from archive.tally import Tally
from archive.wording import ROWS_PER_STATEMENT, hold_names, insert_rows, one_of
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
        .where(schema.tenant.c.name == tenant, one_of(connection, sop.c.sop_instance_uid, uids))
        .order_by(version.c.instance_id, version.c.number)
    )
    for row in connection.execute(rows):
        at = row._mapping
        fresh = HeldInstance(
            instance_id=at[instance.c.id], study_id=at[instance.c.study_id], series_id=at[instance.c.series_id]
        )
        one = found.setdefault((tenant, at[instance.c.sop_instance_uid]), fresh)
        one.versions.append(known_version(row))


def lock_instances(connection: Connection, held: Iterable[HeldInstance]) -> None:
    """Keep other transactions from adding versions to these instances, or choosing among them, until this one ends.

    What was read of them before may be of yesterday: read it again.
    """
    instance = schema.instance
    ids = sorted(one.instance_id for one in held)
    for start in range(0, len(ids), ROWS_PER_STATEMENT):
        rows = select(instance.c.id).where(one_of(connection, instance.c.id, ids[start : start + ROWS_PER_STATEMENT]))
        connection.execute(rows.order_by(instance.c.id).with_for_update(key_share=True))


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
        message_id=at[version.c.message_id],
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
    missing = [wanted[at] for at in sorted(wanted) if at not in ids]
    if missing:
        insert_rows(connection, table, missing, ignoring=True)
        ids.update(_ids(connection, table, [at for at in wanted if at not in ids], key))
    return ids


def _ids(connection: Connection, table: Table, keys: Iterable[tuple[Any, ...]], key: tuple[str, ...]) -> dict[Any, int]:
    columns, wanted = [table.c[name] for name in key], list(keys)
    ids: dict[Any, int] = {}
    for start in range(0, len(wanted), ROWS_PER_STATEMENT):
        piece = wanted[start : start + ROWS_PER_STATEMENT]
        parts = [one_of(connection, column, {at[place] for at in piece}) for place, column in enumerate(columns)]
        for row in connection.execute(select(table.c.id, *columns).where(*parts)):
            ids[tuple(row[1:])] = row[0]
    return ids


def tenants(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of tenants by name."""
    ids = ensure(connection, schema.tenant, [{"name": name} for name in names], ("name",))
    return {name: row for (name,), row in ids.items()}


def parents(
    connection: Connection, batch: Sequence[PlacedRecord], tenant_ids: Mapping[str, int], tally: Tally
) -> list[Parents]:
    """The rows above each instance of `batch`; what the batch says of its studies is added by `tally` at the end."""
    patient_ids = _patients(connection, batch, tenant_ids)
    studies: dict[tuple[int, str], dict[str, Any]] = {}
    said: dict[tuple[int, str], dict[str, Any]] = {}
    for placed in batch:
        record = filed(placed)
        tenant_id = tenant_ids[record.attributes.tenant]
        at = (tenant_id, record.study.study_instance_uid)
        row = _study_row(record, tenant_id, patient_ids.get(_person(record, tenant_id)))
        said[at] = gathered(said[at], row) if at in said else row
        studies.setdefault(at, row)
    study_ids = ensure(connection, schema.study, list(studies.values()), ("tenant_id", "study_instance_uid"))
    tally.said.update({study_ids[at]: row for at, row in said.items()})
    keys: list[tuple[int, int, tuple[int, str]]] = []
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for placed in batch:
        record = filed(placed)
        tenant_id = tenant_ids[record.attributes.tenant]
        study_id = study_ids[tenant_id, record.study.study_instance_uid]
        series_key = (study_id, record.series.series_instance_uid)
        if series_key not in rows:
            rows[series_key] = _series_row(record, study_id)
        keys.append((tenant_id, study_id, series_key))
    series_ids = ensure(connection, schema.series, list(rows.values()), ("study_id", "series_instance_uid"))
    return [Parents(tenant_id=tenant, study_id=study, series_id=series_ids[key]) for tenant, study, key in keys]


# ---- patients ------------------------------------------------------------------------------------------------------

_Person = tuple[int, str, str]


def _person(record: InstanceRecord, tenant_id: int) -> _Person:
    """Who an instance says the patient is: an identifier within its issuer, within a tenant."""
    return tenant_id, stored_text(record.patient.patient_id), stored_text(record.patient.issuer)


def _patients(
    connection: Connection, batch: Sequence[PlacedRecord], tenant_ids: Mapping[str, int]
) -> dict[_Person, int]:
    """Patients by identifier. An instance without Patient ID belongs to none: nobody is merged by absence.

    Nor by an identifier that is too long to be kept whole in an index.
    """
    wanted: dict[_Person, str] = {}
    for placed in batch:
        record = filed(placed)
        person = _person(record, tenant_ids[record.attributes.tenant])
        if person[1] and not any(_is_long(text) for text in person[1:]):
            wanted.setdefault(person, record.attributes.time)
    found = _find_patients(connection, wanted)
    if missing := sorted(person for person in wanted if person not in found):
        # Whoever else knows one of them for the first time waits here, and finds them below.
        hold_names(connection, (f"patient {tenant_id} {value}\x1f{issuer}" for tenant_id, value, issuer in missing))
        found.update(_find_patients(connection, missing))
        found.update(_add_patients(connection, {one: wanted[one] for one in missing if one not in found}))
    return found


def _find_patients(connection: Connection, people: Iterable[_Person]) -> dict[_Person, int]:
    table, listed = schema.patient_identifier, list(people)
    columns = (table.c.tenant_id, table.c.value, table.c.issuer_resolved)
    found: dict[_Person, int] = {}
    for start in range(0, len(listed), ROWS_PER_STATEMENT):
        piece = listed[start : start + ROWS_PER_STATEMENT]
        parts = [one_of(connection, column, {one[place] for one in piece}) for place, column in enumerate(columns)]
        for row in connection.execute(select(*columns, table.c.patient_id).where(*parts)):
            found[tuple(row[:3])] = row[3]
    return {person: found[person] for person in listed if person in found}


def _add_patients(connection: Connection, people: Mapping[_Person, str]) -> dict[_Person, int]:
    """Insert people whom nobody knows; given with the time at which they were first received."""
    if not people:
        return {}
    patient = schema.patient
    rows = [{"tenant_id": person[0], "created_at": at} for person, at in people.items()]
    returning = insert(patient).returning(patient.c.id, sort_by_parameter_order=True)
    ids = dict(zip(people, connection.scalars(returning, rows), strict=True))
    identifiers = [
        {
            "tenant_id": tenant_id,
            "patient_id": patient_id,
            "value": value,
            "issuer_received": issuer,
            "issuer_resolved": issuer,
            "type": "MR",
            "status": "received",
        }
        for (tenant_id, value, issuer), patient_id in ids.items()
    ]
    connection.execute(insert(schema.patient_identifier), identifiers)
    return ids


# ---- rows ----------------------------------------------------------------------------------------------------------


_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")


def stored_text(value: str) -> str:
    """`value` as every database can hold it: NULs and lone surrogates are left out (the record keeps them)."""
    return _UNWRITABLE.sub("", value)


def _key_text(value: str) -> str:
    """`value` as an index can hold it: at most `KEY_BYTES_MAX` of it (the record keeps the rest)."""
    text = stored_text(value)
    return text if not _is_long(text) else text.encode()[: schema.KEY_BYTES_MAX].decode(errors="ignore")


def _is_long(text: str) -> bool:
    return len(text) * 4 > schema.KEY_BYTES_MAX and len(text.encode()) > schema.KEY_BYTES_MAX


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
    }
    row: dict[str, Any] = {name: _key_text(value) for name, value in values.items()}
    row["search_text"] = stored_text(search_text(person.name, person.patient_id, study.accession_number))
    return {**row, "tenant_id": tenant_id, "patient_row": patient_id}


def _series_row(record: InstanceRecord, study_id: int) -> dict[str, Any]:
    series = record.series
    names = (
        "series_instance_uid", "modality", "series_number", "series_description", "series_date", "series_time",
        "body_part_examined", "protocol_name", "station_name", "pps_start_date", "pps_start_time",
        "scheduled_procedure_step_id", "requested_procedure_id",
    )  # fmt: skip
    row: dict[str, Any] = {name: _key_text(getattr(series, name)) for name in names}
    return {**row, "study_id": study_id, "series_order": order_of(series.series_number)}


def instance_row(record: InstanceRecord) -> dict[str, Any]:
    """The columns of `instance` that describe its current version."""
    one = record.instance
    return {
        "sop_class_uid": stored_text(one.sop_class_uid),
        "instance_number": stored_text(one.instance_number),
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
    rows.sort(key=lambda row: (row["tenant_id"], row["sop_instance_uid"]))
    decided = insert_rows(connection, schema.sop, rows, ignoring=True, returning=("tenant_id", "sop_instance_uid"))
    won = {(names[tenant_id], uid) for tenant_id, uid in decided}
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
    inserted = insert_rows(connection, schema.instance, rows, returning=("study_id", "sop_instance_uid", "id"))
    return {(study_id, uid): row for study_id, uid, row in inserted}


def version_row(
    placed: PlacedRecord, *, instance_id: int, number: int, segment_id: int, verdict: str, committed_at: str
) -> dict[str, Any]:
    """The columns of `version`."""
    record = filed(placed)
    return {
        "instance_id": instance_id,
        "number": number,
        "verdict": verdict,
        "message_id": stored_text(record.attributes.id),
        "wire_sha256": record.wire_sha256,
        "pixel_sha256": record.pixel_sha256,
        "study_instance_uid": record.study.study_instance_uid,
        "series_instance_uid": record.series.series_instance_uid,
        "source": stored_text(record.attributes.source),
        "received_at": stored_text(record.attributes.time),
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
