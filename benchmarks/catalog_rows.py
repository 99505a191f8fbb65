"""A catalog filled with plausible rows, quickly and past the commit: what a benchmark or a look at plans begins with.

A study has one series and belongs to one of `DEVICES` devices. Its UIDs are those a device gives, one after the other
under its own root, or random ones under ``2.25.`` (PS3.5 B.2). The same numbers give the same UIDs.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psycopg

from schemas.message import INSTANCE_RECEIVED, Lane, MessageAttributes
from schemas.record import (
    InstanceAttributes,
    InstanceRecord,
    MemberLocation,
    PatientAttributes,
    PlacedRecord,
    SeriesAttributes,
    StudyAttributes,
    encode_placed,
)

Kind = Literal["device", "random"]
KINDS: Final[tuple[Kind, ...]] = ("device", "random")
TENANT: Final = "default"
DEVICES: Final = 60
INSTANCES_PER_STUDY: Final = 500
_ROOT: Final = "1.2.826.0.1.3680043.10.1471"
_MR: Final = "1.2.840.10008.5.1.4.1.1.4"
_MEMBER_BYTES: Final = 300_000


def uid(kind: Kind, *numbers: int) -> str:
    """The UID of a study (its number), a series (and 1) or an instance (and its number)."""
    if kind == "random":
        digest = hashlib.blake2b(repr(numbers).encode(), digest_size=16).digest()
        return f"2.25.{int.from_bytes(digest)}"
    study, *below = numbers
    return ".".join([f"{_ROOT}.{100 + study % DEVICES}.{100_000_000 + study}", *(str(100_000 + n) for n in below)])


def placed_record(kind: Kind, study: int, number: int, *, tenant: str = TENANT) -> PlacedRecord:
    """What the commit of an instance is given."""
    sop = uid(kind, study, 1, number)
    record = InstanceRecord(
        attributes=MessageAttributes(
            id=f"m{study}.{number}",
            type=INSTANCE_RECEIVED,
            source="/edge/host",
            time="2026-03-01T08:15:00.000000Z",
            tenant=tenant,
            lane=Lane.ROUTINE,
            calling_ae="MODALITY",
            called_ae="SANSFILM",
            study_uid=uid(kind, study),
            sop_instance_uid=sop,
        ),
        patient=PatientAttributes(patient_id=f"P{study}", name=_name(study), birth_date="19700101", sex="F"),
        study=StudyAttributes(
            study_instance_uid=uid(kind, study),
            study_date=_date(study),
            study_time="081500",
            accession_number=f"A{study}",
            study_description="Brain",
            institution_name="Benchmark",
        ),
        series=SeriesAttributes(
            series_instance_uid=uid(kind, study, 1), modality="MR", series_number="1", series_description="T1"
        ),
        instance=InstanceAttributes(
            sop_class_uid=_MR, sop_instance_uid=sop, instance_number=str(number), rows=512, columns=512,
            bits_allocated=16, bits_stored=12, samples_per_pixel=1, photometric_interpretation="MONOCHROME2",
        ),
        wire_sha256=hashlib.sha256(sop.encode()).hexdigest(),
        wire_size_bytes=_MEMBER_BYTES,
        pixel_sha256=hashlib.sha256(sop[::-1].encode()).hexdigest(),
        received_transfer_syntax="1.2.840.10008.1.2.1",
        stored_transfer_syntax="1.2.840.10008.1.2.4.202",
        recipe={"pixel_offset": 1300, "pixel_size_bytes": 524288, "codec": "htj2k", "bits": 12, "signed": False},
        pixel_offset=1500,
        frames=((1516, _MEMBER_BYTES - 1600),),
    )  # fmt: skip
    place = MemberLocation(segment=f"{tenant}/{study}.tar", offset=number * _MEMBER_BYTES, size_bytes=_MEMBER_BYTES)
    return PlacedRecord(record=record, location=place)


def _name(study: int) -> str:
    return f"DUPONT{study}^ANNE"


def _date(study: int) -> str:
    return f"{2006 + study % 20}{1 + study % 12:02}{1 + study % 28:02}"


# ---- rows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of studies `first` to `first + studies - 1`; ids follow from the numbers."""

    kind: Kind
    tenant_id: int
    first: int
    studies: int
    instances_per_study: int

    def tables(self) -> Iterator[tuple[str, tuple[str, ...], Iterable[tuple[Any, ...]]]]:
        """Each table with its columns and rows, parents first."""
        columns: tuple[str, ...]
        at, count = self.tenant_id, self.instances_per_study
        numbers = range(self.first, self.first + self.studies)
        yield "patient", ("id", "tenant_id", "created_at"), ((n, at, "") for n in numbers)
        columns = ("id", "tenant_id", "patient_id", "value", "type", "status")
        yield "patient_identifier", columns, ((n, at, n, f"P{n}", "MR", "received") for n in numbers)
        columns = (
            "id", "tenant_id", "patient_row", "study_instance_uid", "study_date", "study_time", "accession_number",
            "study_description", "patient_id", "patient_name", "patient_name_folded", "search_text", "modalities",
            "series_count", "instance_count",
        )  # fmt: skip
        yield "study", columns, (
            (n, at, n, uid(self.kind, n), _date(n), "081500", f"A{n}", "Brain", f"P{n}", _name(n), _name(n).lower(),
             f"dupont{n} anne\x1fp{n}\x1fa{n}", "MR", 1, count)
            for n in numbers
        )  # fmt: skip
        columns = (
            "id",
            "study_id",
            "series_instance_uid",
            "modality",
            "series_number",
            "series_order",
            "instance_count",
        )
        yield "series", columns, ((n, n, uid(self.kind, n, 1), "MR", "1", 1, count) for n in numbers)
        yield "segment", ("id", "tenant_id", "key"), ((n, at, f"{TENANT}/{n}.tar") for n in numbers)
        yield "sop", ("tenant_id", "sop_instance_uid", "study_id"), ((at, sop, n) for n, _, _, sop in self._instances())
        columns = (
            "id", "study_id", "series_id", "sop_instance_uid", "sop_class_uid", "instance_number", "instance_order",
            "rows", "columns", "bits_allocated", "state", "version_count", "current_number",
        )  # fmt: skip
        yield (
            "instance",
            columns,
            (
                (row, n, n, sop, _MR, str(number), number, 512, 512, 16, "visible", 1, 1)
                for n, number, row, sop in self._instances()
            ),
        )
        columns = (
            "id", "instance_id", "number", "verdict", "message_id", "wire_sha256", "pixel_sha256",
            "study_instance_uid", "series_instance_uid", "stored_transfer_syntax", "segment_id", "file_offset",
            "size_bytes", "pixel_offset", "record",
        )  # fmt: skip
        yield "version", columns, map(self._version, self._instances())

    def _instances(self) -> Iterator[tuple[int, int, int, str]]:
        """Study, number in it, row id, SOP Instance UID."""
        for study in range(self.first, self.first + self.studies):
            for number in range(self.instances_per_study):
                row = study * self.instances_per_study + number
                yield study, number, row, uid(self.kind, study, 1, number)

    def _version(self, at: tuple[int, int, int, str]) -> tuple[Any, ...]:
        study, number, row, sop = at
        digest = hashlib.sha256(sop.encode()).hexdigest()
        line = _template(self.kind, study).replace("@sop@", sop).replace("@sha@", digest)
        return (
            row, row, 1, "new", f"m{study}.{number}", digest, digest, uid(self.kind, study), uid(self.kind, study, 1),
            "1.2.840.10008.1.2.4.202", study, number * _MEMBER_BYTES, _MEMBER_BYTES, 1500, line,
        )  # fmt: skip


_templates: dict[tuple[Kind, int], str] = {}


def _template(kind: Kind, study: int) -> str:
    """The record of a study's instances, with marks where they differ."""
    if (kind, study) not in _templates:
        _templates.clear()
        placed = placed_record(kind, study, 1)
        assert isinstance(placed.record, InstanceRecord)
        line = encode_placed(placed).decode()
        line = line.replace(placed.record.wire_sha256, "@sha@").replace(placed.record.pixel_sha256, "@sha@")
        _templates[kind, study] = line.replace(placed.record.instance.sop_instance_uid, "@sop@")
    return _templates[kind, study]


# ---- filling -------------------------------------------------------------------------------------------------------


def fill_postgres(
    url: str, *, instances: int, kind: Kind = "device", instances_per_study: int = INSTANCES_PER_STUDY
) -> int:
    """Add studies until there are `instances` instances, then gather statistics; gives the next study's number."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO tenant (name) VALUES (%s) ON CONFLICT DO NOTHING", [TENANT])
        tenant_id, first, there = _state(
            lambda statement: connection.execute(statement.encode()).fetchone(), instances_per_study
        )
        rows = _rows(kind, tenant_id, first, instances - there, instances_per_study)
        for table, columns, lines in rows.tables():
            with connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
                for line in lines:
                    copy.write_row(line)
            if "id" in columns:
                connection.execute(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))".encode())
        for name, value in _counts(rows):
            connection.execute(
                "INSERT INTO counter VALUES (%s, %s, %s) ON CONFLICT (tenant_id, name)"
                " DO UPDATE SET value = counter.value + excluded.value",
                [tenant_id, name, value],
            )
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return rows.first + rows.studies


def fill_sqlite(
    path: Path, *, instances: int, kind: Kind = "device", instances_per_study: int = INSTANCES_PER_STUDY
) -> int:
    """The same for the catalog in a file, which nobody has open."""
    connection = sqlite3.connect(path)
    for setting in (
        "journal_mode=OFF",
        "synchronous=OFF",
        "cache_size=-1000000",
    ):  # a log would be as large as all of it
        connection.execute(f"PRAGMA {setting}").fetchall()
    connection.execute("INSERT OR IGNORE INTO tenant (name) VALUES (?)", [TENANT])
    tenant_id, first, there = _state(lambda statement: connection.execute(statement).fetchone(), instances_per_study)
    rows = _rows(kind, tenant_id, first, instances - there, instances_per_study)
    for table, columns, lines in rows.tables():
        places = ", ".join("?" * len(columns))
        names = ", ".join(f'"{name}"' for name in columns)
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", lines)
    connection.executemany(
        "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
        [(tenant_id, name, value) for name, value in _counts(rows)],
    )
    connection.commit()
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.close()
    return rows.first + rows.studies


def _state(ask: Any, instances_per_study: int) -> tuple[int, int, int]:
    """The tenant's id, the first free number of a study, and how many instances there are.

    Ids follow from the study's number, and commits may have used more ids than they have rows.
    """
    tenant_id = ask(f"SELECT id FROM tenant WHERE name = '{TENANT}'")[0]
    ids = {"patient": 1, "study": 1, "series": 1, "segment": 1, "instance": instances_per_study}
    ids |= {"patient_identifier": 1, "version": instances_per_study}
    highest = (f"SELECT max(id) / {count} AS study FROM {table}" for table, count in ids.items())
    first = ask(f"SELECT coalesce(max(study), 0) + 1 FROM ({' UNION ALL '.join(highest)}) AS used")[0]
    there = ask(f"SELECT coalesce(max(value), 0) FROM counter WHERE name = 'instances' AND tenant_id = {tenant_id}")[0]
    return tenant_id, first, there


def _rows(kind: Kind, tenant_id: int, first: int, instances: int, instances_per_study: int) -> Rows:
    studies = max(0, instances // instances_per_study)
    return Rows(kind=kind, tenant_id=tenant_id, first=first, studies=studies, instances_per_study=instances_per_study)


def _counts(rows: Rows) -> list[tuple[str, int]]:
    instances = rows.studies * rows.instances_per_study
    return [
        ("studies", rows.studies),
        ("series", rows.studies),
        ("instances", instances),
        ("versions", instances),
        ("bytes", instances * _MEMBER_BYTES),
    ]
