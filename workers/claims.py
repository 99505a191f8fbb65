"""Reads what the edge wrote as a claim check, in bounded memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from archive.filing import member_of
from archive.segment_store import AdoptedMember, Buffer, PreparedMember, SegmentStore
from schemas.message import Message, MessageAttributes
from schemas.record import MemberLocation


def claim_of(attributes: MessageAttributes) -> MemberLocation | None:
    """Where the file of a claim-checked message lies; None if the message carries its file."""
    if not attributes.data_ref:
        return None
    return MemberLocation(segment=attributes.data_ref, offset=attributes.data_offset, size_bytes=attributes.size_bytes)


@contextmanager
def opened(message: Message, store: SegmentStore, *, memory_max_bytes: int) -> Iterator[Buffer]:
    """The Part-10 file of `message`: its value, or the claim read from the store.

    A claim larger than `memory_max_bytes` is copied to an unnamed temporary file and mapped; views into it must be
    released before the context ends.
    """
    claim = claim_of(message.attributes)
    if claim is None:
        yield message.value
    elif claim.size_bytes <= memory_max_bytes:
        yield store.read(claim)
    else:
        with tempfile.TemporaryFile() as spooled:
            for piece in store.stream(claim):
                spooled.write(piece)
            spooled.flush()
            yield memoryview(mmap.mmap(spooled.fileno(), 0, access=mmap.ACCESS_READ))


def carried(
    member: PreparedMember | AdoptedMember, condemned: Collection[str], store: SegmentStore
) -> PreparedMember | AdoptedMember:
    """`member`; where its claim check is being collected, its bytes, read while they are still there.

    Raises:
        FileNotFoundError: they are gone: the collector's settings did not cover how long the message was on its way.
    """
    if isinstance(member, PreparedMember) or member.location.segment not in condemned:
        return member
    return member_of(member.record, list(store.stream(member.location)))
