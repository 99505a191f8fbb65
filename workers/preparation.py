"""Judges one message: parse, hint, transcode with proof. Gives a member to put, or nothing to do.

Runs in the pool's threads; the hashing and the codec release the interpreter lock. Never raises for what a message
holds: a bad message becomes a quarantine entry, and nobody else in the batch is held up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from archive.catalog import KnownVersion
from archive.segment_store import AdoptedMember, Buffer, PreparedMember
from instances.description import Description, describe
from instances.part10 import FileMeta, file_header, split
from instances.transcode import Kept, Transcoded, transcode
from runtime.errors import Rejected, Unfileable
from runtime.logs import get_logger
from schemas.message import MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason, WarningCode
from schemas.record import InstanceRecord, MemberLocation, QuarantineRecord
from segments.checksum import crc32c_hex

#: What is committed, by (tenant, SOP Instance UID).
KnownVersions = Mapping[tuple[str, str], Sequence[KnownVersion]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyHeld:
    """This very content is committed, at `location`: there is nothing to put and nothing to commit."""

    location: MemberLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to do with native pixel data."""

    transcode: Literal["keep", "htj2k"]
    transcode_max_bytes: int


Member = PreparedMember | AdoptedMember
Judged = Member | AlreadyHeld


def judge(
    attributes: MessageAttributes,
    file: Buffer,
    known: KnownVersions,
    policy: Policy,
    claim: MemberLocation | None = None,
) -> Judged:
    """Judge the Part-10 file of one message; `claim` says where the edge already wrote it."""
    try:
        return _judge(attributes, file, known, policy, claim)
    except Unfileable as error:
        return quarantine(attributes, file, error.reason, error.detail, claim)
    except Rejected as error:
        return quarantine(attributes, file, QuarantineReason.PARSE_FAILED, str(error), claim)
    except Exception as error:  # noqa: BLE001 - whatever a hostile data set provokes, its batch goes on
        get_logger().error("preparation_failed", message_id=attributes.id, error=type(error).__name__)
        return quarantine(attributes, file, QuarantineReason.PARSE_FAILED, type(error).__name__, claim)


def quarantine(
    attributes: MessageAttributes,
    file: Buffer,
    reason: QuarantineReason,
    detail: str,
    claim: MemberLocation | None = None,
) -> PreparedMember | AdoptedMember:
    """The quarantine entry of a message: its bytes as they came, and why."""
    digest = hashlib.sha256(file).hexdigest()
    record = QuarantineRecord(attributes=attributes, reason=reason, detail=detail, wire_sha256=digest)
    if claim is not None:
        return AdoptedMember(record=record, location=claim)
    provenance = {**attributes.to_headers(), "quarantine_reason": str(reason), "quarantine_detail": detail}
    provenance["crc32c"] = attributes.crc32c or crc32c_hex([file])
    return PreparedMember(record=record, name=f"unnamed/{attributes.id}", provenance=provenance, parts=[file])


def _judge(
    attributes: MessageAttributes, file: Buffer, known: KnownVersions, policy: Policy, claim: MemberLocation | None
) -> Judged:
    meta, dataset = split(file)
    wire_sha256 = hashlib.sha256(dataset).hexdigest()
    for version in known.get((attributes.tenant, attributes.sop_instance_uid), ()):
        if version.wire_sha256 == wire_sha256:
            return AlreadyHeld(location=version.location)
    description = _described(dataset, meta)
    outcome = _transcode(dataset, meta.transfer_syntax, description, policy, wire_sha256)
    if isinstance(outcome, Transcoded):
        return _transcoded(attributes, description, outcome, wire_sha256, dataset, meta.transfer_syntax)
    return _kept(attributes, description, outcome, wire_sha256, file, dataset, meta.transfer_syntax, claim)


def _described(dataset: memoryview, meta: FileMeta) -> Description:
    description = describe(dataset, meta.transfer_syntax)
    if meta.sop_instance_uid in ("", description.instance.sop_instance_uid):
        return description
    return replace(description, warnings=(*description.warnings, WarningCode.UID_MISMATCH_META))


def _transcode(
    dataset: memoryview, transfer_syntax: str, description: Description, policy: Policy, wire_sha256: str
) -> Transcoded | Kept:
    if policy.transcode == "keep":
        return Kept(reason=KeptReason.POLICY_KEEP)
    return transcode(
        dataset,
        transfer_syntax,
        description,
        max_bytes=policy.transcode_max_bytes,
        received_sha256=wire_sha256,
    )


def _record(
    attributes: MessageAttributes, description: Description, wire_sha256: str, dataset: memoryview, **stored: object
) -> InstanceRecord:
    pixels = description.pixels
    value = dataset[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes] if pixels else None
    return InstanceRecord(
        attributes=attributes,
        patient=description.patient,
        study=description.study,
        series=description.series,
        instance=description.instance,
        wire_sha256=wire_sha256,
        wire_size_bytes=len(dataset),
        pixel_sha256=hashlib.sha256(value).hexdigest() if value is not None else "",
        warnings=description.warnings,
        **stored,  # type: ignore[arg-type]
    )


def _transcoded(
    attributes: MessageAttributes,
    description: Description,
    outcome: Transcoded,
    wire_sha256: str,
    dataset: memoryview,
    received_syntax: str,
) -> PreparedMember:
    header = file_header(
        sop_class_uid=description.instance.sop_class_uid,
        sop_instance_uid=description.instance.sop_instance_uid,
        transfer_syntax=outcome.transfer_syntax,
        calling_ae=attributes.calling_ae,
    )
    record = _record(
        attributes,
        description,
        wire_sha256,
        dataset,
        received_transfer_syntax=received_syntax,
        stored_transfer_syntax=outcome.transfer_syntax,
        recipe=dict(outcome.recipe),
        pixel_offset=len(header) + outcome.pixel_offset,
        frames=_shifted(outcome.frames, len(header)),
    )
    parts = [header, *outcome.parts]
    return PreparedMember(record=record, name=_name(record), provenance=_provenance(record, parts), parts=parts)


def _kept(
    attributes: MessageAttributes,
    description: Description,
    outcome: Kept,
    wire_sha256: str,
    file: Buffer,
    dataset: memoryview,
    received_syntax: str,
    claim: MemberLocation | None,
) -> PreparedMember | AdoptedMember:
    pixels = description.pixels
    dataset_offset = len(file) - len(dataset)
    record = _record(
        attributes,
        description,
        wire_sha256,
        dataset,
        received_transfer_syntax=received_syntax,
        stored_transfer_syntax=received_syntax,
        kept_reason=outcome.reason,
        pixel_offset=dataset_offset + pixels.value_offset if pixels else 0,
        frames=_shifted(pixels.frames, dataset_offset) if pixels else (),
    )
    if claim is not None:
        return AdoptedMember(record=record, location=claim)
    return PreparedMember(record=record, name=_name(record), provenance=_provenance(record, [file]), parts=[file])


def _shifted(frames: Sequence[tuple[int, int]], by: int) -> tuple[tuple[int, int], ...]:
    return tuple((offset + by, size_bytes) for offset, size_bytes in frames)


def _name(record: InstanceRecord) -> str:
    instance = f"{record.instance.sop_instance_uid}.{record.wire_sha256[:16]}.dcm"
    parents = (record.attributes.tenant, record.study.study_instance_uid, record.series.series_instance_uid)
    return "/".join((*parents, instance))


def _provenance(record: InstanceRecord, parts: Sequence[Buffer]) -> dict[str, str]:
    """What DICOM cannot say, as pax records: with it alone the original can be restored and proven."""
    provenance = record.attributes.to_headers()
    provenance["crc32c"] = crc32c_hex(parts)
    provenance["wire_sha256"] = record.wire_sha256
    provenance["wire_size_bytes"] = str(record.wire_size_bytes)
    provenance["received_transfer_syntax"] = record.received_transfer_syntax
    if record.pixel_sha256:
        provenance["pixel_sha256"] = record.pixel_sha256
    if record.recipe:
        provenance["recipe"] = json.dumps(record.recipe, separators=(",", ":"))
    if record.kept_reason:
        provenance["kept_reason"] = str(record.kept_reason)
    if record.warnings:
        provenance["warnings"] = ",".join(record.warnings)
    return provenance
