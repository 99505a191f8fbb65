"""Merges small segments of a tenant into large ones in which a study's instances lie together.

Every instance is moved once: what was written is settled, and what is small waits until there is enough of it, or until
it has waited long enough. The bytes of a member and what it says of itself stay; they are verified on their way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from archive.journal import CompactedNoted, write
from archive.keeping import KeeperCatalog
from archive.layout import id_of
from archive.moving import Held, Move, Small
from archive.replay import ORIGIN
from archive.segment_store import AdoptedMember, PreparedMember, SegmentStore
from runtime import metrics
from runtime.clock import Clock, rfc3339
from runtime.faults import reach
from runtime.logs import get_logger
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord, decode_placed
from segments.tar import SegmentDamaged, padding, read_member, verify_body

#: Segments, and what lies in them, that are merged at once; one transaction moves them.
SEGMENTS_MAX: Final = 256
MEMBERS_MAX: Final = 10_000


class _Rotten(Exception):
    """Bytes of a segment are not what was written, or not there."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is small, what is to become of it, and when."""

    below_bytes: int
    target_bytes: int
    after: timedelta
    #: Longest wait for enough small segments.
    wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Something that counts, and how to copy it."""

    held: Held
    placed: PlacedRecord
    origin: str
    #: Where its header begins; None if it lies in a claim check and stays there.
    header_offset: int | None

    @property
    def order(self) -> tuple[str, int]:
        """Studies together, each in the order of its commits, which is that of a rebuild."""
        record = self.placed.record
        return (record.study.study_instance_uid if isinstance(record, InstanceRecord) else "", self.held.version_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compactor:
    """One round after the other; used by one thread. Memory: one compacted segment, and the records of a group."""

    store: SegmentStore
    catalog: KeeperCatalog
    sizes: Sizes
    clock: Clock
    require_current: Callable[[], None]
    is_stopping: Callable[[], bool]

    def run(self) -> None:
        """Merge what there is, tenant by tenant.

        Raises:
            Retryable: store or catalog is away, or the catalog was restored; a group is merged or is as it was.
        """
        for tenant_id, tenant in self.catalog.tenants().items():
            while not self.is_stopping() and (group := self._group(tenant_id)):
                self.require_current()
                self._compact(tenant, group)

    # ---- what ----

    def _group(self, tenant_id: int) -> Sequence[Small]:
        """Small segments that are worth merging now; none if there are too few and they have not waited long."""
        now = self.clock.now()
        found = self.catalog.small(tenant_id, rfc3339(now - self.sizes.after), limit=SEGMENTS_MAX)
        large = [one.key for one in found if one.size_bytes >= self.sizes.below_bytes]
        self.catalog.settle(large)
        small = [one for one in found if one.size_bytes < self.sizes.below_bytes]
        if not small:
            return []
        enough = len(small) == SEGMENTS_MAX or sum(one.size_bytes for one in small) >= self.sizes.target_bytes
        waited = small[0].committed_at < rfc3339(now - self.sizes.wait)
        return small if enough or waited else []

    def _compact(self, tenant: str, group: Sequence[Small]) -> None:
        sources: list[str] = []
        parts: dict[tuple[str, int], _Part] = {}  # two batches may have named one claim check
        for one in group:
            found = self._parts(tenant, one.key)
            if found is None:
                self.catalog.settle([one.key])
                continue
            if sources and len(parts) + len(found) > MEMBERS_MAX:
                break
            sources.append(one.key)
            for part in found:
                parts.setdefault((part.held.segment, part.held.offset), part)
        if len(sources) == 1 and parts:
            self.catalog.settle(sources)  # alone there is nothing to merge it with
        elif sources:
            try:
                self._merge(tenant, sources, list(parts.values()))
            except _Rotten as error:
                get_logger().error("segment_not_compacted", segment=error.key, hint="run sansfilm archive verify")
                self.catalog.settle([error.key])  # the others are merged without it

    def _parts(self, tenant: str, key: str) -> list[_Part] | None:
        """What counts of a segment's index. None if it has none, or a damaged one: it stays as it is."""
        try:
            lines = [decode_placed(line) for line in self.store.index(key)]
        except (SegmentDamaged, ValueError, FileNotFoundError) as error:
            get_logger().error("segment_index_damaged", segment=key, error=type(error).__name__)
            return None
        if not lines:
            return None
        held = {(one.segment, one.offset): one for one in self.catalog.held(tenant, lines)}
        headers = _header_offsets(key, lines)
        return [
            _Part(
                held=held[at],
                placed=line,
                origin=line.origin or id_of(key),
                header_offset=headers.get(line.location.offset) if line.location.segment == key else None,
            )
            for line in lines
            if (at := (line.location.segment, line.location.offset)) in held
        ]

    # ---- how ----

    def _merge(self, tenant: str, sources: Sequence[str], parts: Sequence[_Part]) -> None:
        """Written, noted in the journal, then swapped: each is whole, or the group is as it was."""
        moves: list[Move] = []
        written: list[str] = []
        for output in self._outputs(parts):
            put = self.store.put(tenant, [self._member(part) for part in output])
            written.append(put.key)
            for part, location in zip(output, put.locations, strict=True):
                to = PlacedRecord(record=part.placed.record, location=location, origin=part.origin)
                moves.append(Move(held=part.held, to=to))
        reach("compactor.put")
        at = rfc3339(self.clock.now())
        if written:
            origins = sorted({part.origin for part in parts})
            entry = CompactedNoted(tenant=tenant, keys=written, replaces=sources, origins=origins, at=at)
            write(self.store, entry)
            reach("compactor.journaled")
        self.catalog.swap(tenant, moves, written=written, replaced=sources)
        reach("compactor.swapped")
        for kind, count in (("written", len(written)), ("replaced", len(sources)), ("moved", len(moves))):
            metrics.COMPACTED.labels(kind).inc(count)
        get_logger().info("segments_compacted", replaced=len(sources), written=len(written), members=len(moves))

    def _outputs(self, parts: Sequence[_Part]) -> Iterator[Sequence[_Part]]:
        """Parts of a study together, in the order of their commits, as much as a segment is to hold."""
        output: list[_Part] = []
        size_bytes = 0
        for part in sorted(parts, key=lambda part: part.order):
            part_bytes = part.placed.location.size_bytes if part.header_offset is not None else 0
            if output and size_bytes + part_bytes > self.sizes.target_bytes:
                yield output
                output, size_bytes = [], 0
            output.append(part)
            size_bytes += part_bytes
        if output:
            yield output

    def _member(self, part: _Part) -> PreparedMember | AdoptedMember:
        """What is put of a part: its bytes and what they say of themselves, verified. Raises _Rotten."""
        location, record = part.placed.location, part.placed.record
        if part.header_offset is None:
            return AdoptedMember(record=record, location=location, origin=part.origin)
        try:
            return self._copied(part, part.header_offset)
        except (SegmentDamaged, FileNotFoundError) as error:
            raise _Rotten(location.segment) from error

    def _copied(self, part: _Part, header_offset: int) -> PreparedMember:
        location, record = part.placed.location, part.placed.record
        size_bytes = location.offset + location.size_bytes + len(padding(location.size_bytes)) - header_offset
        whole = MemberLocation(segment=location.segment, offset=header_offset, size_bytes=size_bytes)
        read = self.store.read(whole)
        member = read_member(lambda at, size: read[at : at + size], 0, len(read))
        if member is None or member.offset + header_offset != location.offset:
            raise SegmentDamaged("a member is not where its index says")
        body = memoryview(read)[member.offset : member.offset + member.size_bytes]
        verify_body(member, body)
        said = {**member.provenance, ORIGIN: part.origin}
        return PreparedMember(record=record, name=member.name, provenance=said, parts=[body], origin=part.origin)


def _header_offsets(key: str, lines: Sequence[PlacedRecord]) -> dict[int, int]:
    """Where the header of each member of a segment begins, by where its body does: behind the member before it."""
    found: dict[int, int] = {}
    at = 0
    inside = (line.location for line in lines if line.location.segment == key)
    for location in sorted(inside, key=lambda location: location.offset):
        found[location.offset] = at
        at = location.offset + location.size_bytes + len(padding(location.size_bytes))
    return found
