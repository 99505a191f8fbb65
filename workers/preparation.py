"""Judges one message: parse, hint, transcode with proof. Gives a member to put, or nothing to do.

Runs in the pool's threads; the hashing and the codec release the interpreter lock. Nothing is raised for what a message
holds: a bad message becomes a quarantine entry, and nobody else in the batch is held up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from archive.catalog import KnownVersion
from archive.filing import Received, Stored, instance_record, member_of
from archive.segment_store import AdoptedMember, Buffer, PreparedMember
from broker.log import Position
from instances.description import Description, describe
from instances.part10 import FileMeta, file_header, split
from instances.transcode import Kept, Transcoded, transcode
from runtime.errors import Rejected, Retryable, Unfileable
from runtime.logs import get_logger
from schemas.message import MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason, WarningCode
from schemas.record import MemberLocation, QuarantineRecord
from segments.checksum import crc32c_hex

#: What is committed, by (tenant, SOP Instance UID).
KnownVersions = Mapping[tuple[str, str], Sequence[KnownVersion]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyHeld:
    """This very content is committed, at `location`: there is nothing to put and nothing to commit."""

    location: MemberLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class LostVersion:
    """What a message brought is committed, and neither the stored bytes nor the message's own are there any more."""

    location: MemberLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to do with native pixel data."""

    transcode: Literal["keep", "htj2k"]
    transcode_max_bytes: int
    #: Why, where `transcode` is ``keep``.
    kept_reason: KeptReason = KeptReason.POLICY_KEEP


Member = PreparedMember | AdoptedMember
Judged = Member | AlreadyHeld
J = TypeVar("J", bound=Judged)


def judge(
    attributes: MessageAttributes,
    file: Buffer,
    known: KnownVersions,
    policy: Policy,
    claim: MemberLocation | None = None,
) -> Judged:
    """Judge the Part-10 file of one message; `claim` says where the edge already wrote it.

    Raises:
        Retryable: a fault that passes.
        MemoryError: there was none left, which may be the doing of what is judged beside it.
    """
    try:
        return _judge(attributes, file, known, policy, claim)
    except Unfileable as error:
        return quarantine(attributes, file, error.reason, error.detail, claim)
    except (Retryable, MemoryError):
        raise
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
    """The quarantine entry of a message: its bytes as they came, and why. Those of a claim are not looked at."""
    digest = hashlib.sha256(file).hexdigest() if claim is None else attributes.sha256
    record = QuarantineRecord(attributes=attributes, reason=reason, detail=detail, wire_sha256=digest)
    if claim is not None:
        return AdoptedMember(record=record, location=claim)
    return member_of(record, [file])


def positioned(judged: J, position: Position) -> J:
    """`judged` with the place of its message in the log, for whoever traces it."""
    if isinstance(judged, AlreadyHeld):
        return judged
    record = replace(judged.record, log_position=f"{position.stream}@{position.offset}")
    return replace(judged, record=record)


def _judge(
    attributes: MessageAttributes, file: Buffer, known: KnownVersions, policy: Policy, claim: MemberLocation | None
) -> Judged:
    if claim is not None and crc32c_hex([file]) != attributes.crc32c:  # the log has verified what it carries itself
        raise Unfileable(QuarantineReason.PARSE_FAILED, "the file was damaged since its receipt: its CRC32C differs")
    meta, dataset = split(file)
    wire_sha256 = hashlib.sha256(dataset).hexdigest()
    for version in known.get((attributes.tenant, attributes.sop_instance_uid), ()):
        if version.wire_sha256 == wire_sha256:
            return AlreadyHeld(location=version.location)
    received = Received(
        attributes=attributes,
        dataset=dataset,
        transfer_syntax=meta.transfer_syntax,
        wire_sha256=wire_sha256,
        description=_described(dataset, meta),
    )
    outcome = _transcode(received, policy)
    if isinstance(outcome, Transcoded):
        return _rewritten(received, outcome)
    return _kept(received, outcome, file, claim)


def _described(dataset: memoryview, meta: FileMeta) -> Description:
    description = describe(dataset, meta.transfer_syntax)
    if meta.sop_instance_uid in ("", description.instance.sop_instance_uid):
        return description
    return replace(description, warnings=(*description.warnings, WarningCode.UID_MISMATCH_META))


def _transcode(received: Received, policy: Policy) -> Transcoded | Kept:
    if policy.transcode == "keep":
        return Kept(reason=policy.kept_reason)
    return transcode(
        received.dataset,
        received.transfer_syntax,
        received.description,
        max_bytes=policy.transcode_max_bytes,
        received_sha256=received.wire_sha256,
    )


def _rewritten(received: Received, outcome: Transcoded) -> PreparedMember:
    header = file_header(
        sop_class_uid=received.description.instance.sop_class_uid,
        sop_instance_uid=received.description.instance.sop_instance_uid,
        transfer_syntax=outcome.transfer_syntax,
        calling_ae=received.attributes.calling_ae,
    )
    stored = Stored(
        transfer_syntax=outcome.transfer_syntax,
        dataset_offset=len(header),
        pixel_offset=outcome.pixel_offset,
        frames=outcome.frames,
        recipe=dict(outcome.recipe),
        kept_reason=None,
    )
    return member_of(instance_record(received, stored), [header, *outcome.parts])


def _kept(received: Received, outcome: Kept, file: Buffer, claim: MemberLocation | None) -> Member:
    pixels = received.description.pixels
    stored = Stored(
        transfer_syntax=received.transfer_syntax,
        dataset_offset=len(file) - len(received.dataset),
        pixel_offset=pixels.value_offset if pixels else None,
        frames=pixels.frames if pixels else (),
        recipe={},
        kept_reason=outcome.reason,
    )
    record = instance_record(received, stored)
    return AdoptedMember(record=record, location=claim) if claim else member_of(record, [file])
