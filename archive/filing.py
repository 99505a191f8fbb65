"""What is written about an instance when it is filed: its record, its member's name, its provenance.

One place for the worker, which files what it received, and for a rebuild, which files again what a segment without a
readable index holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from archive.segment_store import Buffer, PreparedMember
from instances.description import Description
from schemas.message import MessageAttributes
from schemas.reasons import KeptReason
from schemas.record import InstanceRecord, Record
from segments.checksum import crc32c_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An instance as it was received and read."""

    attributes: MessageAttributes
    #: The data set, group 2 excluded, in `transfer_syntax`.
    dataset: Buffer
    transfer_syntax: str
    wire_sha256: str
    description: Description


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How it is stored. Offsets are relative to the stored data set, which begins at `dataset_offset` of the file."""

    transfer_syntax: str
    dataset_offset: int
    pixel_offset: int | None
    frames: Sequence[tuple[int, int]]
    recipe: dict[str, object]
    kept_reason: KeptReason | None


def instance_record(received: Received, stored: Stored) -> InstanceRecord:
    """The record of an instance."""
    description, at = received.description, stored.dataset_offset
    return InstanceRecord(
        attributes=received.attributes,
        patient=description.patient,
        study=description.study,
        series=description.series,
        instance=description.instance,
        wire_sha256=received.wire_sha256,
        wire_size_bytes=len(received.dataset),
        pixel_sha256=_pixel_sha256(received),
        received_transfer_syntax=received.transfer_syntax,
        stored_transfer_syntax=stored.transfer_syntax,
        recipe=stored.recipe,
        kept_reason=stored.kept_reason,
        warnings=description.warnings,
        pixel_offset=0 if stored.pixel_offset is None else at + stored.pixel_offset,
        frames=tuple((at + offset, size_bytes) for offset, size_bytes in stored.frames),
    )


def member_name(record: InstanceRecord) -> str:
    """The member's name in its segment; never trusted as a path."""
    instance = f"{record.instance.sop_instance_uid}.{record.wire_sha256[:16]}.dcm"
    parents = (record.attributes.tenant, record.study.study_instance_uid, record.series.series_instance_uid)
    return "/".join((*parents, instance))


def member_of(record: Record, parts: Sequence[Buffer]) -> PreparedMember:
    """What is put of an instance that is filed, or of a message that cannot be."""
    if isinstance(record, InstanceRecord):
        return PreparedMember(
            record=record, name=member_name(record), provenance=provenance(record, parts), parts=parts
        )
    given = record.attributes
    why = {"quarantine_reason": str(record.reason), "quarantine_detail": record.detail}
    headers = {**given.to_headers(), **why, "crc32c": given.crc32c or crc32c_hex(parts)}
    return PreparedMember(record=record, name=f"unnamed/{given.id}", provenance=headers, parts=parts)


def provenance(record: InstanceRecord, parts: Sequence[Buffer]) -> dict[str, str]:
    """What DICOM cannot say, as pax records: with it alone the original can be restored and proven."""
    given = record.attributes.to_headers()
    given["crc32c"] = crc32c_hex(parts)
    given["wire_sha256"] = record.wire_sha256
    given["wire_size_bytes"] = str(record.wire_size_bytes)
    given["received_transfer_syntax"] = record.received_transfer_syntax
    if record.pixel_sha256:
        given["pixel_sha256"] = record.pixel_sha256
    if record.recipe:
        given["recipe"] = json.dumps(record.recipe, separators=(",", ":"))
    if record.kept_reason:
        given["kept_reason"] = str(record.kept_reason)
    if record.warnings:
        given["warnings"] = ",".join(record.warnings)
    return given


def _pixel_sha256(received: Received) -> str:
    pixels = received.description.pixels
    if pixels is None:
        return ""
    value = memoryview(received.dataset)[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes]
    return hashlib.sha256(value).hexdigest()
