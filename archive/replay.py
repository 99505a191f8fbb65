"""Replays segments and journal through the very commit that made the live catalog, in the order of their ids.

What the journal says was decided is not decided again:

* content noted as a conflict is never compared, it is a further version; met before the first content of its UID, it
  waits until that has come;
* receipts noted as the same as others are passed by, so that those stand which stood;
* after a noted conflict, the version it names is the current one;
* decisions are executed where they stand;
* segments noted as condemned are passed by;
* what was compacted is taken from the compacted segment, in the place of the segment it came from.

Where one process puts, ids are in the order of its commits (`archive.unfinished`). Where several do they are not, and
the four notes above are what their order would have decided. What is not noted: which of several instances of a study,
committed by several workers at once, was the first, whose attributes are the study's. And an entry that could not be
followed where it stands, because clocks of processes differ, is followed at the end.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Final

from archive.catalog import KnownVersion, OnConflict, OnSame, Verdict
from archive.findings import Finding, FindingKind, Progress
from archive.journal import ConflictNoted, DecisionNoted
from archive.layout import JOURNAL, id_of, instance_key, made_at
from archive.noted import Instance, Noted, read_journal
from archive.reindexing import record_of
from archive.segment_store import Comparer, SegmentStore
from archive.sql_catalog import SqlCatalog
from schemas.decisions import UseVersion
from schemas.identifiers import SegmentKey
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord, decode_placed
from segments.tar import SegmentDamaged

#: Records of one transaction.
BATCH_RECORDS: Final = 500
#: Provenance of a member that was moved: the id of the segment it was committed in.
ORIGIN: Final = "origin"
#: Indexes of compacted segments held at once.
_INDEXES_MAX: Final = 16
Committed = Callable[[PlacedRecord, Verdict], None]


@dataclass(slots=True, kw_only=True)
class Rebuilding:
    """What was read and what was found."""

    segments: int = 0
    journal_entries: int = 0
    records: int = 0
    findings: list[Finding] = field(default_factory=list)


class IdClock:
    """Tells the time at which a segment was put, so that a rebuilt catalog does not say everything came today."""

    def __init__(self) -> None:
        self.moment = datetime.fromtimestamp(0, UTC)

    def be_at(self, key: str) -> None:
        """Be at the time of a segment's id."""
        with suppress(ValueError):
            self.moment = made_at(id_of(key))

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self.moment

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self.moment.timestamp()

    def new_id(self) -> str:
        """See `Clock.new_id`."""
        raise NotImplementedError("a replay makes no ids")


class Replay:
    """One run through the archive."""

    def __init__(
        self,
        *,
        store: SegmentStore,
        catalog: SqlCatalog,
        equal: Comparer,
        clock: IdClock | None = None,
        on_conflict: OnConflict | None = None,
        on_same: OnSame | None = None,
        committed: Committed | None = None,
    ) -> None:
        """Reads the journal. `on_conflict` and `on_same` hear of verdicts that are not in it already."""
        self._store = store
        self._catalog = catalog
        self._compare = equal
        self._clock = clock
        self._on_conflict = on_conflict
        self._on_same = on_same
        self._committed = committed
        self.report = Rebuilding()
        self.noted: Noted = read_journal(store, damaged=partial(self._note, FindingKind.JOURNAL_DAMAGED))
        #: Conflicts that came before what they are in conflict with: few.
        self._early: list[tuple[str, PlacedRecord]] = []
        #: Entries that could not be followed where they stand.
        self._unfollowed: dict[str, ConflictNoted | DecisionNoted] = {}
        #: Segments that readable indexes name; found out only if one cannot be read.
        self._named: set[str] | None = None
        self._indexes: OrderedDict[str, dict[str, list[PlacedRecord]]] = OrderedDict()

    # ---- the whole archive, in order ----

    def run(self, progress: Progress) -> Rebuilding:
        """Replay everything; the catalog is empty before. Progress counts places."""
        total = sum(1 for _ in self.places())
        for done, key in enumerate(self.places()):
            progress(done, total)
            if self._clock is not None:
                self._clock.be_at(key)
            if key.startswith(f"{JOURNAL}/"):
                self._follow(key)
            else:
                self.commit(key)
        self.finish()
        progress(total, total)
        return self.report

    def places(self) -> Iterator[str]:
        """Keys in the order of their ids: of segments that are there, and of those whose content is elsewhere now."""
        moved = (
            str(instance_key(keys[0].partition("/")[0], origin)) for origin, keys in sorted(self.noted.moved.items())
        )
        places: Iterator[str] = heapq.merge(self._store.keys(), moved, key=id_of)
        for _, same in groupby(places, key=id_of):
            yield next(same)

    def commit(self, key: str) -> None:
        """Commit what was put in the place of a segment; nothing if it is a claim check or was condemned."""
        if key in self.noted.condemned or key in self.noted.compacted:
            return
        elsewhere = self.noted.moved.get(id_of(key))
        for source in elsewhere or (key,):
            lines = self._moved_lines(source, id_of(key)) if elsewhere else self.lines(key)
            placed = [one for one in lines if not self._is_same(one) and self._is_present(one, source)]
            if lines:  # a claim check has none, and is live only if an index that counts names it
                self._commit_in_order(source, placed)
            self.report.records += len(placed)
        self.report.segments += 1

    def finish(self) -> None:
        """Commit what waited, and follow what could not be followed."""
        for key, one in self._early:
            self._commit(key, [one])
        for key, entry in self._unfollowed.items():
            if not self._execute(entry) and isinstance(entry, DecisionNoted):
                self._note(FindingKind.DECISION_WITHOUT_OBJECT, key, type(entry.decision).__name__)
        current = self.noted.current()
        for at in {_instance_of(entry) for entry in self._unfollowed.values()} & current.keys():
            self._catalog.keep_current(*at, current[at])

    # ---- segments ----

    def _commit_in_order(self, key: str, placed: Sequence[PlacedRecord]) -> None:
        """Commit records of a segment in their order, but those in conflict with what has not come yet."""
        further = {id(one): _instance(one) for one in placed if _is_filed(one) and self.noted.is_conflict(_filed(one))}
        if not further:
            self._commit(key, placed)
            return
        tenant = placed[0].record.attributes.tenant
        come = {(tenant, uid) for uid in self._catalog.known(tenant, [uid for _, uid in further.values()])}
        ready: list[PlacedRecord] = []
        for one in placed:
            if id(one) in further and further[id(one)] not in come:
                self._early.append((key, one))
                continue
            ready.append(one)
            if _is_filed(one):
                come.add(_instance(one))
        self._commit(key, ready)

    def _commit(self, key: str, placed: Sequence[PlacedRecord]) -> None:
        for start in range(0, max(1, len(placed)), BATCH_RECORDS):
            piece = placed[start : start + BATCH_RECORDS]
            verdicts = self._catalog.commit_batch(
                piece,
                equal=self._equal,
                on_conflict=self._note_conflict,
                on_same=self._on_same,
                segments=[SegmentKey(key)],
            )
            if self._committed is not None:
                for one, verdict in zip(piece, verdicts, strict=True):
                    self._committed(one, verdict)

    def lines(self, key: str) -> Sequence[PlacedRecord]:
        """The records of a segment: its index, or if that cannot be read, its members described again."""
        try:
            return [decode_placed(line) for line in self._store.index(key)]
        except FileNotFoundError:  # collected meanwhile
            return []
        except (SegmentDamaged, ValueError) as error:
            again = [one for lost in (key, *self._unnamed_claims(key)) for one in self._described(lost)]
            kind = FindingKind.INDEX_REPLACED if again else FindingKind.INDEX_DAMAGED
            self._note(kind, key, str(error))
            return again

    def _moved_lines(self, key: str, origin: str) -> Sequence[PlacedRecord]:
        """Of a compacted segment, the records that came from one place."""
        if key not in self._indexes:
            by_origin: dict[str, list[PlacedRecord]] = {}
            for one in self.lines(key):
                by_origin.setdefault(one.origin, []).append(one)
            self._indexes[key] = by_origin
            if len(self._indexes) > _INDEXES_MAX:
                self._indexes.popitem(last=False)
        return self._indexes[key].get(origin, [])

    def _described(self, key: str) -> Iterator[PlacedRecord]:
        recovery = self._store.members(key)
        for piece in recovery.torn:
            if not self._is_index(key, piece.offset, piece.size_bytes):
                self._note(FindingKind.MEMBER_DAMAGED, key, f"{piece.size_bytes} bytes at {piece.offset} do not verify")
        for member in recovery.members:
            location = MemberLocation(segment=key, offset=member.offset, size_bytes=member.size_bytes)
            try:
                record = record_of(self._store.read(location), member.provenance)
                yield PlacedRecord(record=record, location=location, origin=member.provenance.get(ORIGIN, ""))
            except ValueError as error:
                self._note(FindingKind.MEMBER_UNREADABLE, key, str(error))

    def _unnamed_claims(self, before: str) -> Iterator[str]:
        """Claim checks that may have been adopted by the segment `before`, whose index is damaged.

        Those made earlier than it that no readable index names, each once. A duplicate among them changes nothing.
        """
        if self._named is None:
            self._named = set(self._indexed())
        for key in self._store.keys():  # noqa: SIM118 - a store is no mapping
            if id_of(key) >= id_of(before) or key.startswith(f"{JOURNAL}/") or key in self._named:
                continue
            if self._is_claim(key):
                self._named.add(key)
                yield key

    def _indexed(self) -> Iterator[str]:
        """The segments that readable indexes name."""
        for key in self._store.keys():  # noqa: SIM118 - a store is no mapping
            with suppress(SegmentDamaged, ValueError, FileNotFoundError):
                if not key.startswith(f"{JOURNAL}/"):
                    yield from (decode_placed(line).location.segment for line in self._store.index(key))

    def _is_claim(self, key: str) -> bool:
        with suppress(SegmentDamaged, FileNotFoundError):
            return key not in self.noted.condemned and not self._store.index(key)
        return False

    def _is_index(self, key: str, offset: int, size_bytes: int) -> bool:
        """Whether a piece that does not verify is the index, whose records are being made again."""
        piece = MemberLocation(segment=key, offset=offset, size_bytes=size_bytes)
        name = f"PaxHeaders/{id_of(key)}.index".encode()
        return size_bytes >= len(name) and self._store.read(piece, 0, len(name)) == name

    def _is_present(self, placed: PlacedRecord, source: str) -> bool:
        """Whether the bytes are there: those of a large duplicate are removed once it is known to be one."""
        if placed.location.segment == source:
            return True
        try:
            self._store.size_bytes(placed.location.segment)
        except FileNotFoundError:
            self._note(FindingKind.SEGMENT_UNREFERRED, placed.location.segment, "named by an index, collected since")
            return False
        return True

    # ---- verdicts ----

    def _is_same(self, placed: PlacedRecord) -> bool:
        return _is_filed(placed) and self.noted.is_same(_filed(placed))

    def _equal(self, placed: PlacedRecord, version: KnownVersion) -> bool:
        return not self.noted.is_conflict(_filed(placed)) and self._compare(placed.location, version.location)

    def _note_conflict(self, placed: PlacedRecord, current: KnownVersion) -> None:
        if self._on_conflict is not None and not self.noted.is_conflict(_filed(placed)):
            self._on_conflict(placed, current)

    # ---- journal ----

    def _follow(self, key: str) -> None:
        entry = self.noted.entries.get(key)
        if isinstance(entry, ConflictNoted | DecisionNoted) and not self._execute(entry):
            if isinstance(entry, ConflictNoted) or isinstance(entry.decision, UseVersion):
                self._unfollowed[key] = entry  # it was noted because its object was there
            else:
                self._note(FindingKind.DECISION_WITHOUT_OBJECT, key, type(entry.decision).__name__)
        self.report.journal_entries += 1

    def _execute(self, entry: ConflictNoted | DecisionNoted) -> bool:
        """Follow an entry; False if what it is about is not there."""
        if isinstance(entry, ConflictNoted):
            return self._catalog.keep_current(entry.tenant, entry.sop_instance_uid, entry.current_wire_sha256)
        return execute(self._catalog, entry)

    def _note(self, kind: FindingKind, key: str, detail: str) -> None:
        self.report.findings.append(Finding(kind=kind, segment=key, detail=detail))


def execute(catalog: SqlCatalog, entry: DecisionNoted) -> bool:
    """Execute a decision once; False if there is nothing it could be about."""
    return catalog.apply(entry.decision, decision_id=entry.id, decided_at=entry.at, decided_by=entry.by)


def _instance_of(entry: ConflictNoted | DecisionNoted) -> Instance:
    if isinstance(entry, ConflictNoted):
        return entry.tenant, entry.sop_instance_uid
    return entry.decision.tenant, getattr(entry.decision, "sop_instance_uid", "")


def _is_filed(placed: PlacedRecord) -> bool:
    return isinstance(placed.record, InstanceRecord)


def _filed(placed: PlacedRecord) -> InstanceRecord:
    assert isinstance(placed.record, InstanceRecord)
    return placed.record


def _instance(placed: PlacedRecord) -> Instance:
    return placed.record.attributes.tenant, _filed(placed).instance.sop_instance_uid
