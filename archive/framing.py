"""A batch as the bytes of its segment: the same whatever store it goes to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archive.layout import id_of
from archive.segment_store import AdoptedMember, Buffer, PreparedMember
from schemas.record import MemberLocation, PlacedRecord, encode_placed
from segments.trailer import seal_blocks
from segments.writer import EncodedMember, encode_member, member_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedSegment:
    """A segment before it is written. Its members' parts are referenced, never copied."""

    segment_id: str
    members: Sequence[EncodedMember]
    index_lines: Sequence[bytes]
    #: Where the members lie, in the order they were given; an adopted one lies elsewhere.
    locations: Sequence[MemberLocation]

    def blocks(self) -> list[Buffer]:
        """All of the segment's bytes, buffer by buffer."""
        end = sum(one.total_bytes for one in self.members)
        return [
            *member_blocks(self.members),
            *seal_blocks(segment=self.segment_id, offset=end, index_lines=self.index_lines),
        ]


def frame_batch(key: str, members: Sequence[PreparedMember | AdoptedMember]) -> FramedSegment:
    """The segment of a batch, with an index line for each member."""
    segment_id = id_of(key)
    framed = [one for one in members if isinstance(one, PreparedMember)]
    bodies = [
        encode_member(segment=segment_id, name=one.name, provenance=one.provenance, parts=one.parts) for one in framed
    ]
    places = iter(_places(key, bodies))
    locations = [one.location if isinstance(one, AdoptedMember) else next(places) for one in members]
    lines = [
        encode_placed(PlacedRecord(record=one.record, location=location, origin=one.origin))
        for one, location in zip(members, locations, strict=True)
    ]
    return FramedSegment(segment_id=segment_id, members=bodies, index_lines=lines, locations=locations)


def frame_entry(key: str, entry: Mapping[str, object]) -> FramedSegment:
    """The segment of a journal entry: the entry is the one member, ``journal/<id>.json``; there is no index."""
    segment_id = id_of(key)
    body = json.dumps(dict(entry), sort_keys=True, ensure_ascii=False).encode()
    member = encode_member(segment=segment_id, name=f"journal/{segment_id}.json", provenance={}, parts=[body])
    return FramedSegment(segment_id=segment_id, members=[member], index_lines=[], locations=[])


def member_range(location: MemberLocation, offset: int, size_bytes: int | None) -> tuple[int, int]:
    """Where in the segment a range of a member lies, and how large it is.

    Raises:
        ValueError: the range is not inside the member.
    """
    size = location.size_bytes - offset if size_bytes is None else size_bytes
    if offset < 0 or size < 0 or offset + size > location.size_bytes:
        raise ValueError("the range is not inside the member")
    return location.offset + offset, size


def _places(key: str, bodies: Sequence[EncodedMember]) -> Iterator[MemberLocation]:
    at = 0
    for body in bodies:
        yield MemberLocation(segment=key, offset=at + len(body.header), size_bytes=body.size_bytes)
        at += body.total_bytes
