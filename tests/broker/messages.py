"""Messages for tests of the log: small, distinct, with true checksums."""

from __future__ import annotations

from schemas.message import DECISION_MADE, INSTANCE_RECEIVED, Lane, Message, MessageAttributes
from segments.checksum import crc32c_hex


def instance(number: int, *, size_bytes: int = 600, lane: Lane = Lane.ROUTINE) -> Message:
    """A message with a value of its own."""
    value = (b"instance %d " % number * (size_bytes // 11 + 1))[:size_bytes]
    attributes = MessageAttributes(
        id=f"01900000-0000-7000-8000-{number:012d}",
        type=INSTANCE_RECEIVED,
        source="/edge/test",
        time="2026-03-01T08:15:00.000000Z",
        tenant="default",
        lane=lane,
        study_uid="1.2.826.0.1.3680043.10.1471.1",
        sop_instance_uid=f"1.2.826.0.1.3680043.10.1471.1.1.{number}",
        size_bytes=len(value),
        crc32c=crc32c_hex([value]),
    )
    return Message(attributes=attributes, value=value)


def claim_check(number: int) -> Message:
    """A message whose file lies elsewhere."""
    attributes = MessageAttributes(
        id=f"01900000-0000-7000-8000-{number:012d}",
        type=INSTANCE_RECEIVED,
        source="/edge/test",
        time="2026-03-01T08:15:00.000000Z",
        tenant="default",
        lane=Lane.ROUTINE,
        size_bytes=5 * 1024 * 1024,
        crc32c="01234567",
        data_ref="default/2026/03/01/0190.tar",
        data_offset=4096,
        sha256="ab" * 32,
    )
    return Message(attributes=attributes)


def decision(number: int) -> Message:
    """A message that carries JSON."""
    attributes = MessageAttributes(
        id=f"01900000-0000-7000-8000-{number:012d}",
        type=DECISION_MADE,
        source="/cli/test",
        time="2026-03-01T08:15:00.000000Z",
        tenant="default",
        lane=Lane.ROUTINE,
    )
    return Message(attributes=attributes, value=b'{"decision":"use_version"}')


def number_of(message: Message) -> int:
    """What `instance` was called with."""
    return int(message.attributes.id[-12:])
