"""Reads everything again and hashes it: whether each version still gives back what was received."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from archive.ahead import ahead
from archive.catalog import CatalogReader
from archive.findings import Finding, FindingKind, Progress, no_progress
from archive.layout import JOURNAL
from archive.original import OriginalDamaged, original
from archive.segment_store import SegmentStore
from archive.unfinished import require_empty
from instances.description import describe
from runtime.errors import Unfileable
from schemas.record import InstanceRecord, PlacedRecord, decode_placed
from segments.tar import SegmentDamaged


@dataclass(slots=True, kw_only=True)
class Verification:
    """What was read and what was found."""

    versions: int = 0
    quarantined: int = 0
    segments: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything stored is what was received."""
        return not any(finding.kind.is_error for finding in self.findings)


def verify(reader: CatalogReader, store: SegmentStore, progress: Progress = no_progress) -> Verification:
    """Verify every version and quarantine entry of the catalog and every segment of the store.

    Progress counts bytes. Memory is a few small instances, or a large one. Nothing is changed; a running worker is
    not in the way.

    Raises:
        Misconfigured: the catalog knows nothing and the archive holds instances.
        Retryable: the store or the catalog went away, or a rebuild put another catalog in place; begin again.
    """
    done = Verification()
    sizes = dict(store.sized_keys())
    unreferred, total = set(sizes), sum(sizes.values())
    every = (placed for placed, _ in reader.placed())
    for placed, findings in ahead(lambda one: list(_findings(one, store)), every, lambda one: one.location.size_bytes):
        unreferred.discard(placed.location.segment)
        done.findings += findings
        done.bytes += placed.location.size_bytes
        done.versions += isinstance(placed.record, InstanceRecord)
        done.quarantined += not isinstance(placed.record, InstanceRecord)
        progress(done.bytes, max(total, done.bytes))
    if not done.versions and not done.quarantined:
        require_empty(store)

    def of_segment(key: str) -> list[Finding]:
        return list(_segment_findings(key, store, referred=key not in unreferred))

    for _, findings in ahead(of_segment, store.keys()):
        done.segments += 1
        done.findings += findings
    progress(total, total)
    return done


def _findings(placed: PlacedRecord, store: SegmentStore) -> Iterator[Finding]:
    """What is wrong with one version or quarantine entry."""
    try:
        if isinstance(placed.record, InstanceRecord):
            if not _pixels_equal(placed.record, original(store, placed.record, placed.location)):
                yield _finding(placed, FindingKind.PIXELS_DIFFER)
        elif not _bytes_equal(placed, store):
            yield _finding(placed, FindingKind.ORIGINAL_DIFFERS)
    except OriginalDamaged as error:
        yield _finding(placed, FindingKind.ORIGINAL_DIFFERS, str(error))
    except FileNotFoundError:
        yield _finding(placed, FindingKind.SEGMENT_MISSING)
    except SegmentDamaged as error:
        yield _finding(placed, FindingKind.MEMBER_DAMAGED, str(error))


def _pixels_equal(record: InstanceRecord, dataset: bytes) -> bool:
    if not record.pixel_sha256:
        return True
    try:
        pixels = describe(dataset, record.received_transfer_syntax).pixels
    except Unfileable:
        return False
    if pixels is None:
        return False
    with memoryview(dataset) as view:
        value = view[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes]
        return hashlib.sha256(value).hexdigest() == record.pixel_sha256


def _bytes_equal(placed: PlacedRecord, store: SegmentStore) -> bool:
    digest = hashlib.sha256()
    for piece in store.stream(placed.location):
        digest.update(piece)
    return placed.record.wire_sha256 in ("", digest.hexdigest())


def _segment_findings(key: str, store: SegmentStore, *, referred: bool) -> Iterator[Finding]:
    is_journal = key.startswith(f"{JOURNAL}/")
    try:
        if is_journal:
            store.journal_entry(key)
        else:
            store.index(key)
    except SegmentDamaged as error:
        kind = FindingKind.JOURNAL_DAMAGED if is_journal else FindingKind.INDEX_DAMAGED
        yield Finding(kind=kind, segment=key, detail=str(error))
    except FileNotFoundError:  # collected meanwhile; if somebody refers to it, that was found above
        return
    if not referred and not is_journal:
        yield Finding(kind=FindingKind.SEGMENT_UNREFERRED, segment=key)
        yield from _unreferred_findings(key, store)


def _unreferred_findings(key: str, store: SegmentStore) -> Iterator[Finding]:
    """What is wrong inside a segment that no version lies in: it may be the only copy of what is not committed yet."""
    try:
        placed = [decode_placed(line) for line in store.index(key)]
    except SegmentDamaged:  # found above
        placed = []
    own = [one for one in placed if one.location.segment == key]
    for one in own:
        yield from _findings(one, store)
    for piece in () if own else store.members(key).torn:
        detail = f"{piece.size_bytes} bytes at {piece.offset} do not verify"
        yield Finding(kind=FindingKind.MEMBER_DAMAGED, segment=key, detail=detail)


def _finding(placed: PlacedRecord, kind: FindingKind, detail: str = "") -> Finding:
    record = placed.record
    uid = record.instance.sop_instance_uid if isinstance(record, InstanceRecord) else record.attributes.id
    return Finding(kind=kind, segment=placed.location.segment, sop_instance_uid=uid, detail=detail)
