"""Records of a segment whose index cannot be read, made again from its members: bytes and provenance say everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from archive.segment_store import Buffer
from instances.description import describe
from instances.htj2k import CodecError
from instances.part10 import split
from instances.transcode import restore, wire_sha256
from runtime.errors import Rejected, Unfileable
from schemas.message import MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason
from schemas.record import InstanceRecord, QuarantineRecord, Record


def record_of(file: Buffer, provenance: Mapping[str, str]) -> Record:
    """The record of a member.

    Raises:
        ValueError: the member was not written by the worker, or does not hold what its provenance says.
    """
    attributes = MessageAttributes.from_headers(provenance)
    if "quarantine_reason" in provenance:
        return QuarantineRecord(
            attributes=attributes,
            reason=QuarantineReason(provenance["quarantine_reason"]),
            detail=provenance.get("quarantine_detail", ""),
            wire_sha256=hashlib.sha256(file).hexdigest(),
        )
    try:
        return _instance(file, attributes, provenance)
    except (Unfileable, Rejected, CodecError) as error:
        raise ValueError(f"the member cannot be described: {error}") from error


def _instance(file: Buffer, attributes: MessageAttributes, provenance: Mapping[str, str]) -> InstanceRecord:
    meta, stored = split(file)
    recipe = json.loads(provenance.get("recipe", "{}"))
    received = restore(stored, recipe) if recipe else stored
    syntax = provenance.get("received_transfer_syntax") or meta.transfer_syntax
    digest = wire_sha256(received)
    if provenance.get("wire_sha256", digest) != digest:
        raise ValueError("the data set's SHA-256 differs")
    description = describe(received, syntax)
    pixels = description.pixels
    value = b"" if pixels is None else received[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes]
    kept = provenance.get("kept_reason")
    places = describe(stored, meta.transfer_syntax).pixels if recipe else pixels
    return InstanceRecord(
        attributes=attributes,
        patient=description.patient,
        study=description.study,
        series=description.series,
        instance=description.instance,
        wire_sha256=digest,
        wire_size_bytes=len(received),
        pixel_sha256=hashlib.sha256(value).hexdigest() if pixels else "",
        received_transfer_syntax=syntax,
        stored_transfer_syntax=meta.transfer_syntax if recipe else syntax,
        recipe=recipe,
        kept_reason=KeptReason(kept) if kept else None,
        warnings=description.warnings,
        pixel_offset=meta.dataset_offset + places.value_offset if places else 0,
        frames=tuple((meta.dataset_offset + at, size) for at, size in places.frames) if places else (),
    )
