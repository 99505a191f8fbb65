"""Records and members for the archive's tests: made as the worker makes them, from real data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from archive.catalog import Conflict, KnownVersion, New, Quarantined, Same, Scope, Verdict
from archive.segment_store import PreparedMember
from instances.description import describe
from instances.part10 import file_header
from instances.transcode import Transcoded, transcode, wire_sha256
from schemas.message import INSTANCE_RECEIVED, Lane, MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason
from schemas.record import (
    InstanceAttributes,
    InstanceRecord,
    MemberLocation,
    PatientAttributes,
    PlacedRecord,
    QuarantineRecord,
    SeriesAttributes,
    StudyAttributes,
)
from tests.datasets import dataset_bytes

TENANT = "default"
SCOPE = Scope(principal="test", tenant=TENANT)
NEW, SAME, QUARANTINED = New(), Same(), Quarantined()


class StepClock:
    """A clock that goes on by a millisecond whenever it is asked; its ids are UUIDv7 of that time."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)) -> None:
        self.moment = start
        self._count = 0

    def now(self) -> datetime:
        self.moment += timedelta(milliseconds=1)
        return self.moment

    def monotonic_s(self) -> float:
        return self.now().timestamp()

    def new_id(self) -> str:
        self._count += 1
        milliseconds = int(self.now().timestamp() * 1000)
        return str(UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | self._count))


def attributes(message_id: str = "m1", **given: object) -> MessageAttributes:
    """Attributes of a message received in the morning."""
    known: dict[str, object] = {
        "id": message_id,
        "type": INSTANCE_RECEIVED,
        "source": "/edge/host",
        "time": "2026-03-01T08:15:00.000000Z",
        "tenant": TENANT,
        "lane": Lane.ROUTINE,
        "calling_ae": "MODALITY",
        "called_ae": "SANSFILM",
    }
    return MessageAttributes(**{**known, **given})  # type: ignore[arg-type]


def digest(content: str) -> str:
    """A wire digest."""
    return hashlib.sha256(content.encode()).hexdigest()


def record(
    uid: str = "1.2.3.1",
    content: str = "a",
    *,
    study: StudyAttributes | str = "1.2",
    series: SeriesAttributes | str = "",
    patient: PatientAttributes | None = None,
    instance: InstanceAttributes | None = None,
    **given: object,
) -> InstanceRecord:
    """A record without real bytes; `content` decides its digest."""
    of_study = StudyAttributes(study_instance_uid=study) if isinstance(study, str) else study
    of_series = series or f"{of_study.study_instance_uid}.1"
    if isinstance(of_series, str):
        of_series = SeriesAttributes(series_instance_uid=of_series, modality="MR", series_number="1")
    given.setdefault("message_id", f"{uid}/{of_study.study_instance_uid}/{content}")
    return InstanceRecord(
        attributes=attributes(**given),  # type: ignore[arg-type]
        patient=patient or PatientAttributes(patient_id="P1", name="DOE^JANE"),
        study=of_study,
        series=of_series,
        instance=instance
        or InstanceAttributes(sop_class_uid="1.2.840", sop_instance_uid=uid, instance_number=uid.rpartition(".")[2]),
        wire_sha256=digest(f"{of_study.study_instance_uid}/{content}"),
        wire_size_bytes=100,
    )


def quarantined(message_id: str, reason: QuarantineReason = QuarantineReason.PARSE_FAILED) -> QuarantineRecord:
    """The record of a message that cannot be filed."""
    return QuarantineRecord(attributes=attributes(message_id), reason=reason, detail="it cannot be walked")


def placed(one: InstanceRecord | QuarantineRecord, segment: str = "default/a.tar", at: int = 0) -> PlacedRecord:
    """`one` at a made-up place."""
    return PlacedRecord(record=one, location=MemberLocation(segment=segment, offset=at, size_bytes=512))


def member(
    dataset: Dataset, *, keep: bool = False, transfer_syntax: str = ExplicitVRLittleEndian, **given: object
) -> PreparedMember:
    """`dataset` judged as the worker does: transcoded with its recipe, or kept."""
    given.setdefault("message_id", f"id-{dataset.SOPInstanceUID}")
    wire = dataset_bytes(dataset, transfer_syntax)
    description = describe(wire, transfer_syntax)
    outcome = transcode(wire, transfer_syntax, description, max_bytes=2**30)
    became = outcome if isinstance(outcome, Transcoded) and not keep else None
    stored_syntax = became.transfer_syntax if became else transfer_syntax
    header = file_header(
        sop_class_uid=description.instance.sop_class_uid,
        sop_instance_uid=description.instance.sop_instance_uid,
        transfer_syntax=stored_syntax,
    )
    pixels = description.pixels
    value = wire[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes] if pixels else b""
    at, frames = (pixels.value_offset, pixels.frames) if pixels else (0, ())
    if became:
        at, frames = became.pixel_offset, became.frames
    one = InstanceRecord(
        attributes=attributes(**given),  # type: ignore[arg-type]
        patient=description.patient,
        study=description.study,
        series=description.series,
        instance=description.instance,
        wire_sha256=wire_sha256(wire),
        wire_size_bytes=len(wire),
        pixel_sha256=hashlib.sha256(value).hexdigest() if pixels else "",
        received_transfer_syntax=transfer_syntax,
        stored_transfer_syntax=stored_syntax,
        recipe=became.recipe if became else {},
        kept_reason=None if became else KeptReason.POLICY_KEEP,
        pixel_offset=len(header) + at if pixels else 0,
        frames=tuple((len(header) + offset, size) for offset, size in frames),
    )
    parts = [header, *became.parts] if became else [header, wire]
    return PreparedMember(record=one, name=_name(one), provenance=_provenance(one), parts=parts)


def unfileable(message_id: str, content: bytes = b"no data set") -> PreparedMember:
    """The member of a message that cannot be filed."""
    one = QuarantineRecord(
        attributes=attributes(message_id),
        reason=QuarantineReason.PARSE_FAILED,
        detail="it cannot be walked",
        wire_sha256=hashlib.sha256(content).hexdigest(),
    )
    said = {"quarantine_reason": str(one.reason), "quarantine_detail": one.detail}
    said.update(one.attributes.to_headers())
    return PreparedMember(record=one, name=f"unnamed/{message_id}", provenance=said, parts=[content])


def _name(one: InstanceRecord) -> str:
    uids = (one.study.study_instance_uid, one.series.series_instance_uid, one.instance.sop_instance_uid)
    return f"{one.attributes.tenant}/{'/'.join(uids)}.{one.wire_sha256[:16]}.dcm"


def _provenance(one: InstanceRecord) -> dict[str, str]:
    said = {
        **one.attributes.to_headers(),
        "wire_sha256": one.wire_sha256,
        "received_transfer_syntax": one.received_transfer_syntax,
    }
    if one.kept_reason:
        said["kept_reason"] = one.kept_reason
    if one.recipe:
        said["recipe"] = json.dumps(one.recipe)
    return said


Equal = Callable[[PlacedRecord, KnownVersion], bool]


def never_equal(one: PlacedRecord, version: KnownVersion) -> bool:
    """Unequal digests are other content."""
    return False


def always_equal(one: PlacedRecord, version: KnownVersion) -> bool:
    """Unequal digests are re-encodings."""
    return True


def not_noted(one: PlacedRecord, current: KnownVersion) -> None:
    """For tests that need no journal."""


def names(verdicts: object) -> list[str]:
    """Verdicts as words."""
    assert isinstance(verdicts, list)
    return [type(verdict).__name__ for verdict in verdicts]


def conflict_with(one: InstanceRecord) -> Verdict:
    """The verdict when `one` stays current."""
    return Conflict(current_wire_sha256=one.wire_sha256)
