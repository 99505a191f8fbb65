"""Brings a catalog that was restored from a backup up to its archive, while workers run on it.

What the archive has and the catalog does not know: segments without a row, journal entries. Segments are committed
through the commit that workers use, in the order of their ids; what is there already is Same. What workers have
committed since the restoration stands: other content that turns up now is in conflict with it, and noted as such.

1. What was condemned is condemned again, so that a late commit cannot win against a deletion that the catalog forgot.
2. Unknown segments are committed, as a replay does it.
3. Decisions that are not known are executed; each is known by its id.
4. Of every instance that was touched, the version that the journal named last is current. Entries that workers write
   meanwhile count: the journal is read on until nothing new is said of such an instance.
5. Compactions are followed: what still points to a segment that was replaced is sent to where it lies now.
6. The catalog begins another life, and the archive's tide file says so: the keeper goes on.

May be interrupted and run again at any point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from archive import tide
from archive.catalog import Conflict, New, OnConflict, OnSame, Verdict
from archive.findings import Finding, FindingKind, Progress
from archive.incarnation import Incarnation
from archive.journal import DecisionNoted
from archive.keeping import KeeperCatalog
from archive.layout import JOURNAL
from archive.noted import Instance, Noted, current_of, read_on
from archive.replay import Replay, execute
from archive.segment_store import Comparer, SegmentStore
from archive.sql_catalog import SqlCatalog
from schemas.decisions import UseVersion
from schemas.record import InstanceRecord, PlacedRecord

_KEYS_AT_ONCE: Final = 500
#: A device that sends one UID again and again is named in the journal again and again.
_SETTLEMENTS_MAX: Final = 5


@dataclass(slots=True, kw_only=True)
class Reconciled:
    """What was found and what became of it."""

    segments: int = 0
    records: int = 0
    new: int = 0
    conflicts: int = 0
    decisions: int = 0
    condemned: int = 0
    moved: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """One run; used by one thread."""

    store: SegmentStore
    catalog: SqlCatalog
    keeping: KeeperCatalog
    equal: Comparer
    on_conflict: OnConflict
    on_same: OnSame
    done: Reconciled = field(default_factory=Reconciled)
    _touched: set[Instance] = field(default_factory=set)

    def run(self, progress: Progress) -> Reconciled:
        """Bring the catalog up; progress counts segments.

        Raises:
            Retryable: store or catalog is away, or a worker was in the way; run it again.
        """
        replay = Replay(
            store=self.store,
            catalog=self.catalog,
            equal=self.equal,
            on_conflict=self.on_conflict,
            on_same=self.on_same,
            committed=self._note_commit,
        )
        self._condemn(replay.noted)
        total = sum(1 for _ in self.store.keys())  # noqa: SIM118 - a store is no mapping
        for key in self._unknown(replay, progress, total):
            replay.commit(key)
        replay.finish()
        for entry in replay.noted.of_decisions():
            self._decide(entry)
        self._settle_current(replay.noted)
        self._follow_compactions(replay)
        self.keeping.note_fates(condemned=(), replaced=replay.noted.replaced)
        tide.write(self.store, self._begin_anew())
        progress(total, total)
        self.done.segments, self.done.records = replay.report.segments, replay.report.records
        self.done.findings += replay.report.findings
        return self.done

    def _condemn(self, noted: Noted) -> None:
        keys = sorted(noted.condemned)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            self.done.condemned += len(self.keeping.condemn(keys[start : start + _KEYS_AT_ONCE]))
        for key in self.keeping.live(keys):
            self.done.findings.append(Finding(kind=FindingKind.CONDEMNED_AND_COMMITTED, segment=key))

    def _unknown(self, replay: Replay, progress: Progress, total: int) -> Iterator[str]:
        """Places of which the catalog does not know, in the order of ids.

        What a compacted segment holds is committed in the place of a segment that the catalog does not know either.
        """
        places = (key for key in replay.places() if not key.startswith(f"{JOURNAL}/"))
        seen = 0
        while piece := list(islice(places, _KEYS_AT_ONCE)):
            progress(seen, max(total, seen))
            seen += len(piece)
            yield from self.keeping.without_row(piece)

    def _note_commit(self, placed: PlacedRecord, verdict: Verdict) -> None:
        if isinstance(placed.record, InstanceRecord) and isinstance(verdict, New | Conflict):
            self._touched.add((placed.record.attributes.tenant, placed.record.instance.sop_instance_uid))
            self.done.new += isinstance(verdict, New)
            self.done.conflicts += isinstance(verdict, Conflict)

    def _decide(self, entry: DecisionNoted) -> None:
        if self.keeping.knows_decision(entry.id):
            return
        if isinstance(entry.decision, UseVersion):
            self._touched.add((entry.decision.tenant, entry.decision.sop_instance_uid))
        if execute(self.catalog, entry):
            self.done.decisions += 1
        else:
            kind = FindingKind.DECISION_WITHOUT_OBJECT
            self.done.findings.append(Finding(kind=kind, detail=type(entry.decision).__name__))

    def _settle_current(self, noted: Noted) -> None:
        """Until nothing new names a version of what was touched: other entries that workers write are none of ours.

        An entry may be of a transaction that saw what was current before we settled it. What comes later saw ours.
        """
        read_on(noted, self.store, damaged=lambda *_: None)
        unsettled = self._touched
        for _ in range(_SETTLEMENTS_MAX):
            if not unsettled:
                return
            current = noted.current()
            for at in sorted(unsettled & current.keys()):
                self.catalog.keep_current(*at, current[at])
            since = map(current_of, read_on(noted, self.store, damaged=lambda *_: None))
            unsettled = self._touched & {named[0] for named in since if named}

    def _follow_compactions(self, replay: Replay) -> None:
        """Those whose segments are all there; what they replaced is kept as long as any backup that may be restored."""
        for entry in replay.noted.of_compactions():
            if all(key in replay.noted.compacted for key in entry.keys):
                lines = [line for key in entry.keys for line in replay.lines(key)]
                self.done.moved += self.keeping.follow(entry.tenant, lines, written=entry.keys, replaced=entry.replaces)

    def _begin_anew(self) -> Incarnation:
        """Another life, whose tide is above all that were written before."""
        written = tide.read(self.store)
        return self.keeping.begin_anew(at_least=written.tide if written else 0)
