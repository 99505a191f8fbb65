"""The message of the log: CloudEvents 1.0 attributes around a Part-10 file, as in the Kafka binary binding.

The value *is* the Part-10 file, so any client of the log can save a ``.dcm``. The attributes travel as headers whose
names are ``ce_`` and the CloudEvents name; the same names are used as pax records in segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

INSTANCE_RECEIVED: Final = "sansfilm.instance.received.v1"
DECISION_MADE: Final = "sansfilm.decision.made.v1"


class Lane(StrEnum):
    """Which queue an instance waits in. Ordered: urgent is taken before routine, routine before bulk."""

    URGENT = "urgent"
    ROUTINE = "routine"
    BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAttributes:
    """What the edge knows of an instance when it publishes it; nothing here comes from patient attributes."""

    #: UUIDv7, fixed at receipt: redelivery carries the same one.
    id: str
    #: INSTANCE_RECEIVED or DECISION_MADE.
    type: str
    #: Which receiver: ``/edge/<host>`` or ``/web/<host>``.
    source: str
    #: When the last byte arrived: RFC 3339, UTC, microseconds, ``Z``.
    time: str
    tenant: str
    lane: Lane
    study_uid: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    #: The transfer syntax of the data set as received.
    transfer_syntax: str = ""
    calling_ae: str = ""
    called_ae: str = ""
    association_id: str = ""
    #: Size of the Part-10 file, in the value or at `data_ref`.
    size_bytes: int = 0
    #: CRC32C of the Part-10 file, eight hex digits.
    crc32c: str = ""
    #: Claim check: the key of the one-member segment that holds the file; the value is then empty.
    data_ref: str = ""
    #: Claim check: where the file begins in that segment.
    data_offset: int = 0
    #: Claim check: SHA-256 of the Part-10 file, in hex.
    sha256: str = ""

    @property
    def key(self) -> str:
        """The partition key: all instances of a study go the same way."""
        return f"{self.tenant}/{self.study_uid}"

    def to_headers(self) -> dict[str, str]:
        """The attributes by CloudEvents name, empty ones left out."""
        return {name: str(value) for field, name in _NAMES.items() if (value := getattr(self, field)) not in ("", 0)}

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> MessageAttributes:
        """The inverse of `to_headers`; unknown names are ignored.

        Raises:
            ValueError: a required attribute is missing or malformed; the message was not written by this product.
        """
        try:
            given = {field: headers[name] for field, name in _NAMES.items() if name in headers}
            integers = {field: int(given.pop(field)) for field in _INTEGERS if field in given}
            lane = Lane(given.pop("lane"))
            return cls(lane=lane, **given, **integers)  # type: ignore[arg-type]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"not a sansfilm message: {type(error).__name__}") from error


_INTEGERS = ("size_bytes", "data_offset")
_NAMES: dict[str, str] = {field.name: "ce_" + field.name.replace("_", "") for field in fields(MessageAttributes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message: attributes and value. The value is a Part-10 file, a decision's JSON, or empty (claim check)."""

    attributes: MessageAttributes
    value: bytes | bytearray | memoryview = b""
