"""What the archive writes about an instance: one line of a segment's index, and the input of the catalog's commit.

The same record serves commit and rebuild, so everything the catalog holds about an instance must be in it.
Offsets inside a record are relative to the first byte of the member's Part-10 file; where that file lies is said by
`MemberLocation`, which the segment store fills in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from schemas.message import Lane, MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason, WarningCode


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLocation:
    """Where a member's Part-10 file lies."""

    segment: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientAttributes:
    """The patient as this instance says (PS3.3 C.7.1.1), decoded to Unicode. Never logged."""

    patient_id: str = ""
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAttributes:
    """The study as this instance says (PS3.3 C.7.2.1)."""

    study_instance_uid: str
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    accession_number: str = ""
    accession_issuer: str = ""
    study_description: str = ""
    referring_physician_name: str = ""
    institution_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesAttributes:
    """The series as this instance says (PS3.3 C.7.3.1)."""

    series_instance_uid: str
    modality: str = ""
    series_number: str = ""
    series_description: str = ""
    series_date: str = ""
    series_time: str = ""
    body_part_examined: str = ""
    protocol_name: str = ""
    station_name: str = ""
    #: Performed Procedure Step Start Date and Time, and the request's ids: QIDO series keys of PS3.18 10.6.
    pps_start_date: str = ""
    pps_start_time: str = ""
    scheduled_procedure_step_id: str = ""
    requested_procedure_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceAttributes:
    """The instance itself."""

    sop_class_uid: str
    sop_instance_uid: str
    instance_number: str = ""
    number_of_frames: int = 0
    rows: int = 0
    columns: int = 0
    bits_allocated: int = 0
    bits_stored: int = 0
    samples_per_pixel: int = 0
    pixel_representation: int = 0
    photometric_interpretation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance, filed. Digests are lower-case hex."""

    attributes: MessageAttributes
    patient: PatientAttributes
    study: StudyAttributes
    series: SeriesAttributes
    instance: InstanceAttributes
    #: SHA-256 of the data set as received, group 2 excluded.
    wire_sha256: str
    #: Size of the data set as received, group 2 excluded.
    wire_size_bytes: int
    #: SHA-256 of the value of Pixel Data as received; empty without pixel data.
    pixel_sha256: str = ""
    received_transfer_syntax: str = ""
    stored_transfer_syntax: str = ""
    #: How to undo the transcode (see `instances.transcode`); empty where the bytes are stored as they came.
    recipe: dict[str, Any] = field(default_factory=dict)
    kept_reason: KeptReason | None = None
    warnings: tuple[WarningCode, ...] = ()
    #: Where the Pixel Data element's value begins in the stored file; 0 without pixel data.
    pixel_offset: int = 0
    #: (offset, size) in bytes of each frame in the stored file, a fragment's item header excluded; empty if unknown.
    frames: tuple[tuple[int, int], ...] = ()
    #: Where the message lay in the log, ``<stream>@<offset>``: for whoever traces it.
    log_position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRecord:
    """One message that could not be filed: its bytes, and why."""

    attributes: MessageAttributes
    reason: QuarantineReason
    #: What went wrong in words of the program, never quoting a value of the data set.
    detail: str
    wire_sha256: str = ""
    #: Where the message lay in the log, ``<stream>@<offset>``.
    log_position: str = ""


Record = InstanceRecord | QuarantineRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRecord:
    """A record and the place of its bytes: what the catalog's transaction inserts."""

    record: Record
    location: MemberLocation
    #: Of what was compacted: the id of the segment in whose place it was committed.
    origin: str = ""


def encode_placed(placed: PlacedRecord) -> bytes:
    """One line of a segment's index: JSON in UTF-8, without the line feed."""
    kind = "instance" if isinstance(placed.record, InstanceRecord) else "quarantine"
    body = {"kind": kind, "location": placed.location, "record": placed.record}
    if placed.origin:
        body["origin"] = placed.origin
    return _ENCODER.encode(body).encode()


def _fields_of(value: object) -> dict[str, object]:
    """A record's fields by name, one level deep: the encoder asks again for what is inside.

    `dataclasses.asdict` copies everything it meets and costs five times as much, on the path of every instance.
    """
    return {name: getattr(value, name) for name in value.__slots__}  # type: ignore[attr-defined]


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_fields_of)


def decode_placed(line: bytes | str) -> PlacedRecord:
    """The inverse of `encode_placed`.

    Raises:
        ValueError: not a line this version knows.
    """
    try:
        body = json.loads(line)
        record = body["record"]
        attributes = _attributes(record.pop("attributes"))
        location, origin = MemberLocation(**body["location"]), body.get("origin", "")
        if body["kind"] == "quarantine":
            reason = QuarantineReason(record.pop("reason"))
            return PlacedRecord(
                record=QuarantineRecord(attributes=attributes, reason=reason, **record),
                location=location,
                origin=origin,
            )
        return PlacedRecord(record=_instance(attributes, record), location=location, origin=origin)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an index line: {type(error).__name__}") from error


def _attributes(given: dict[str, Any]) -> MessageAttributes:
    return MessageAttributes(**{**given, "lane": Lane(given["lane"])})


def _instance(attributes: MessageAttributes, record: dict[str, Any]) -> InstanceRecord:
    kept = record.pop("kept_reason")
    return InstanceRecord(
        attributes=attributes,
        patient=PatientAttributes(**record.pop("patient")),
        study=StudyAttributes(**record.pop("study")),
        series=SeriesAttributes(**record.pop("series")),
        instance=InstanceAttributes(**record.pop("instance")),
        kept_reason=KeptReason(kept) if kept else None,
        warnings=tuple(WarningCode(code) for code in record.pop("warnings")),
        frames=tuple((offset, size) for offset, size in record.pop("frames")),
        **record,
    )
