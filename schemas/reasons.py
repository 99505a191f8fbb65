"""Bounded reasons: each enumeration is complete, its values are metric labels, and each member says what it means."""

from __future__ import annotations

from enum import StrEnum


class RejectReason(StrEnum):
    """Why the edge did not accept an instance or an association. The sender still has it and is told."""

    ASSOCIATION_LIMIT = "association_limit"
    DISK_LOW = "disk_low"
    LOG_UNAVAILABLE = "log_unavailable"
    UID_MISMATCH = "uid_mismatch"
    HEAD_UNREADABLE = "head_unreadable"
    TOO_LARGE = "too_large"
    SOP_CLASS_REFUSED = "sop_class_refused"
    TRANSFER_SYNTAX_REFUSED = "transfer_syntax_refused"

    @property
    def dimse_status(self) -> int:
        """The C-STORE response status (PS3.4 Table B.2-1, PS3.7 Annex C)."""
        return _DIMSE_STATUS[self]

    @property
    def http_status(self) -> int:
        """The status of a STOW-RS answer in which nothing was accepted (PS3.18 10.5.3)."""
        return _HTTP_STATUS[self]


_DIMSE_STATUS = {
    RejectReason.ASSOCIATION_LIMIT: 0xA700,
    RejectReason.DISK_LOW: 0xA700,
    RejectReason.LOG_UNAVAILABLE: 0xA700,
    RejectReason.UID_MISMATCH: 0xA900,
    RejectReason.HEAD_UNREADABLE: 0xC000,
    RejectReason.TOO_LARGE: 0xA700,
    RejectReason.SOP_CLASS_REFUSED: 0x0122,
    RejectReason.TRANSFER_SYNTAX_REFUSED: 0xC122,
}
_HTTP_STATUS = {
    RejectReason.ASSOCIATION_LIMIT: 503,
    RejectReason.DISK_LOW: 503,
    RejectReason.LOG_UNAVAILABLE: 503,
    RejectReason.UID_MISMATCH: 409,
    RejectReason.HEAD_UNREADABLE: 409,
    RejectReason.TOO_LARGE: 413,
    RejectReason.SOP_CLASS_REFUSED: 409,
    RejectReason.TRANSFER_SYNTAX_REFUSED: 409,
}


class QuarantineReason(StrEnum):
    """Why an acknowledged instance cannot be filed. Its bytes are kept; an operator replays or discards it."""

    PARSE_FAILED = "parse_failed"
    MISSING_UID = "missing_uid"
    UNSAFE_UID = "unsafe_uid"
    DICOMDIR = "dicomdir"
    TOO_DEEP = "too_deep"
    DECODE_LIMIT = "decode_limit"
    KILLS_WORKER = "kills_worker"
    #: The segment in which the edge wrote it is missing or too short: bring it back from a copy, and replay the entry.
    CLAIM_LOST = "claim_lost"


class KeptReason(StrEnum):
    """Why an instance is stored in the transfer syntax it came in."""

    POLICY_KEEP = "policy_keep"
    #: A claim check that would have to be written again on a disk that is nearly full.
    NO_ROOM = "no_room"
    HAS_WARNINGS = "has_warnings"
    NO_PIXEL_DATA = "no_pixel_data"
    NOT_EXPLICIT_LITTLE_ENDIAN = "not_explicit_little_endian"
    ALREADY_COMPRESSED = "already_compressed"
    BITS_ALLOCATED = "bits_allocated"
    SAMPLES_PER_PIXEL = "samples_per_pixel"
    PIXEL_LENGTH = "pixel_length"
    TOO_LARGE = "too_large"
    NOT_SMALLER = "not_smaller"
    CODEC_FAILED = "codec_failed"
    PROOF_FAILED = "proof_failed"


class WarningCode(StrEnum):
    """What is odd about an instance that was filed all the same. Such an instance is never transcoded."""

    UID_NOT_CONFORMING = "uid_not_conforming"
    UID_MISMATCH_META = "uid_mismatch_meta"
    TRUNCATED = "truncated"
    PIXEL_LENGTH_MISMATCH = "pixel_length_mismatch"
    CHARACTER_SET = "character_set"
    VALUE_UNREADABLE = "value_unreadable"
    ENCAPSULATION_BROKEN = "encapsulation_broken"
    TRAILING_BYTES = "trailing_bytes"
