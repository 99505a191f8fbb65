"""Records of a segment whose index cannot be read, made again from its members: bytes and provenance say everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from archive.filing import Received, Stored, instance_record
from archive.segment_store import Buffer
from instances.description import describe
from instances.htj2k import CodecError
from instances.part10 import split
from instances.transcode import restore, wire_sha256
from runtime.errors import Rejected, Unfileable
from schemas.message import MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason, WarningCode
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
    if warnings := provenance.get("warnings"):
        description = replace(description, warnings=tuple(map(WarningCode, warnings.split(","))))
    kept = provenance.get("kept_reason")
    pixels = describe(stored, meta.transfer_syntax).pixels if recipe else description.pixels
    return instance_record(
        Received(
            attributes=attributes,
            dataset=received,
            transfer_syntax=syntax,
            wire_sha256=digest,
            description=description,
        ),
        Stored(
            transfer_syntax=meta.transfer_syntax if recipe else syntax,
            dataset_offset=meta.dataset_offset,
            pixel_offset=pixels.value_offset if pixels else None,
            frames=pixels.frames if pixels else (),
            recipe=recipe,
            kept_reason=KeptReason(kept) if kept else None,
        ),
    )
