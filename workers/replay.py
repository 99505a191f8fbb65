"""A stretch of the log into the live archive once more: a no-op if all is well, and a repair where it is not.

Each message is judged as a worker judges it. What the archive holds is left alone before anything is written: no
segment, no journal entry, no row. Only the rest is put and committed, by the worker's own steps 7 and 8; the catalog
decides again, so workers may commit meanwhile.

Not repeated: operators' decisions (one of yesterday could undo one of today), and what was quarantined (by its message,
so that what killed a worker is not looked into).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, Protocol

from archive.catalog import CatalogReader, Conflict, KnownVersion, Quarantined, Same, Scope, Verdict, comparable
from archive.compare import same_content
from archive.decided import QuarantineState
from archive.segment_store import Buffer, SegmentStore
from broker.log import Taken
from instances.equality import Decode
from schemas.message import MessageAttributes
from schemas.reasons import QuarantineReason
from schemas.record import InstanceRecord
from workers.batches import BatchLimits, cut, weight_bytes
from workers.healing import is_there
from workers.patience import Patience
from workers.pipeline import Batch, Filing, Identity, distinct, identity_of, is_decision
from workers.preparation import AlreadyHeld, KnownVersions, LostVersion, Member
from workers.receipts import brought_one
from workers.rooms import Rooms

_TAKE_WAIT_S: Final = 0.25
#: What is said of a version whose segment is lost.
BYTES_GONE: Final = "its stored bytes are gone"


class Outcome(StrEnum):
    """What a message of the stretch came to."""

    SAME = "same"
    NEW = "new"
    CONFLICT = "conflict"
    LOST = "lost"
    QUARANTINED = "quarantined"
    QUARANTINED_ALREADY = "quarantined_already"
    UNREADABLE = "unreadable"
    DECISION = "decision"

    @property
    def differs(self) -> bool:
        """Whether the archive is not as the log says."""
        return self not in (Outcome.SAME, Outcome.QUARANTINED_ALREADY, Outcome.DECISION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One message and what it came to. Nothing in it is a patient's."""

    taken: Taken
    outcome: Outcome
    #: In words; empty where there is nothing to say.
    why: str = ""
    #: Whether a shadow stores it in another transfer syntax than the live archive.
    stored_otherwise: bool = False
    #: Whether a shadow held it before this run.
    there_already: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages of the stretch are meant."""

    #: Patterns of calling AE titles, as those of lane rules; empty: all senders.
    calling_ae: tuple[str, ...] = ()
    study_uid: str = ""

    def includes(self, attributes: MessageAttributes) -> bool:
        """Whether a message is meant."""
        if self.study_uid and attributes.study_uid != self.study_uid:
            return False
        return not self.calling_ae or any(fnmatchcase(attributes.calling_ae, one) for one in self.calling_ae)


class Source(Protocol):
    """What a stretch is taken from, to its end; see `broker.kafka.stretch.StretchReader`."""

    @property
    def is_done(self) -> bool: ...

    def take(self, *, max_messages: int, max_bytes: int, wait_s: float) -> Sequence[Taken]: ...


def batches_of(source: Source, limits: BatchLimits) -> Iterator[Sequence[Taken]]:
    """The messages of a stretch in batches as a worker's, to the end. Holds one batch and what did not fit."""
    waiting: deque[Taken] = deque()
    while True:
        room_bytes = limits.max_bytes - sum(map(weight_bytes, waiting))
        if not source.is_done and room_bytes > 0 and len(waiting) < limits.max_messages:
            room = limits.max_messages - len(waiting)
            waiting.extend(source.take(max_messages=room, max_bytes=room_bytes, wait_s=_TAKE_WAIT_S))
        elif waiting:
            yield cut(waiting, limits)
        else:
            return


def entry_of(reader: CatalogReader, attributes: MessageAttributes) -> Mapping[str, Any] | None:
    """The quarantine entry of this very message, closed or not; None if there is none."""
    scope = Scope(principal="replay", tenant=attributes.tenant)
    return next(iter(reader.quarantined(scope, include_closed=True, entry_id=attributes.id)), None)


def in_words(entry: Mapping[str, Any]) -> str:
    """A quarantine entry."""
    state = "" if entry["state"] == QuarantineState.OPEN else f", {entry['state']}"
    return f"quarantined as {entry['reason']}{state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A message as it was found, before anything is done; with what is to be filed."""

    taken: Taken
    outcome: Outcome
    why: str = ""
    member: Member | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReplay:
    """Replays into the archive that `rooms` opened; nothing is written unless `files`."""

    rooms: Rooms
    threads: Executor
    files: bool
    patience: Patience = field(default_factory=Patience)

    def run(self, taken: Sequence[Taken]) -> Sequence[Replayed]:
        """What each message of one batch came to, decisions first. Waits through passing faults.

        Raises:
            SansfilmError: what does not pass; nothing of the batch is half done, and it may be replayed again.
            Stopped: the run is to end.
        """
        decisions = [decision_left(one) for one in taken if is_decision(one)]
        instances = [one for one in taken if not is_decision(one)]
        lasting = self.patience.lasting
        known = lasting("look", lambda: self.rooms.judging.hint(instances))
        found = list(self.threads.map(lambda one: lasting("judge", lambda: self._find(one, known)), instances))
        if self.files:
            return [*decisions, *self._file(found)]
        return [*decisions, *(Replayed(taken=one.taken, outcome=one.outcome, why=one.why) for one in found)]

    def _find(self, taken: Taken, known: KnownVersions) -> _Found:
        attributes = taken.message.attributes
        versions = known.get((attributes.tenant, attributes.sop_instance_uid), ())
        if not brought_one(attributes, versions):
            entry = entry_of(self.rooms.reader, attributes)
            if entry is not None:
                filed = entry["state"] == QuarantineState.REPLAYED
                outcome = Outcome.SAME if filed else Outcome.QUARANTINED_ALREADY
                return _Found(taken=taken, outcome=outcome, why=in_words(entry))
        judged = self.rooms.judging.judge(taken, known)
        if isinstance(judged, AlreadyHeld):
            return _Found(taken=taken, outcome=Outcome.SAME)
        if isinstance(judged, LostVersion):
            return _Found(taken=taken, outcome=Outcome.LOST, why=BYTES_GONE)
        record = judged.record
        if isinstance(record, InstanceRecord):
            return self._compare(taken, record, judged)
        if record.reason == QuarantineReason.CLAIM_LOST:
            return _Found(taken=taken, outcome=Outcome.UNREADABLE, why=claim_gone(versions))
        why = f"cannot be filed: {record.reason}"
        return _Found(taken=taken, outcome=Outcome.QUARANTINED, why=why, member=judged)

    def _compare(self, taken: Taken, record: InstanceRecord, member: Member) -> _Found:
        """What is known under the UID that the data set itself names, which decides."""
        tenant, uid = record.attributes.tenant, record.instance.sop_instance_uid
        versions = self.rooms.catalog.known(tenant, [uid]).get(uid, ())
        if not versions:
            return _Found(taken=taken, outcome=Outcome.NEW, why="was missing", member=member)
        if (held := next((one for one in versions if one.wire_sha256 == record.wire_sha256), None)) is not None:
            if is_there(self.rooms.store, held.location):
                return _Found(taken=taken, outcome=Outcome.SAME)
            return _Found(taken=taken, outcome=Outcome.LOST, why=BYTES_GONE, member=member)
        read = partial(self.rooms.claims.file, taken.message)
        if is_any(read, versions, self.rooms.store, self.rooms.decode):
            return _Found(taken=taken, outcome=Outcome.SAME, why="held in another encoding")
        why = "other content is held under its UID, and this one was missing"
        return _Found(taken=taken, outcome=Outcome.CONFLICT, why=why, member=member)

    def _file(self, found: Sequence[_Found]) -> Sequence[Replayed]:
        verdicts = file_members([one.member for one in found if one.member is not None], self.rooms, self.patience)
        done = set[Identity]()
        replayed: list[Replayed] = []
        for one in found:
            outcome, why = one.outcome, one.why
            if one.member is not None:
                identity = identity_of(one.member.record)
                outcome, why = _decided(one, verdicts[identity], again=identity in done)
                done.add(identity)
            replayed.append(Replayed(taken=one.taken, outcome=outcome, why=why))
        return replayed


def file_members(members: Sequence[Member], rooms: Rooms, patience: Patience) -> Mapping[Identity, Verdict]:
    """Steps 7 and 8 of these members, the same content once; gives what each of them came to."""
    batch = Batch(taken=())
    batch.members = distinct(members, batch.verdicts)
    filing = Filing(
        store=rooms.store,
        catalog=rooms.catalog,
        equal=rooms.equal,
        on_conflict=rooms.on_conflict,
        on_same=rooms.on_same,
    )
    if batch.members:
        patience.lasting("put", lambda: filing.put(batch))
        patience.lasting("commit", lambda: filing.commit(batch))
    return {identity_of(placed.record): verdict for placed, verdict in batch.decided}


def is_any(read: Callable[[], Buffer], versions: Sequence[KnownVersion], store: SegmentStore, decode: Decode) -> bool:
    """Whether the file that `read` gives is, element by element, one of these versions in `store`."""
    return any(
        same_content(read, partial(store.read, one.location), decode=decode, about=[one.location.segment])
        for one in comparable(versions)
    )


def decision_left(taken: Taken) -> Replayed:
    """What a decision comes to."""
    return Replayed(taken=taken, outcome=Outcome.DECISION, why="an operator's decision is never repeated")


def claim_gone(versions: Sequence[object]) -> str:
    """What is said of a claim check that cannot be read, given what is held under its UID."""
    beside = "; other receipts of this instance are held" if versions else ""
    return f"its claim check is no longer in the store, and nothing that its message brought{beside}"


def _decided(found: _Found, verdict: Verdict, *, again: bool) -> tuple[Outcome, str]:
    """What the catalog said of what was found; `again`: of content that a message before it brought."""
    if again or (isinstance(verdict, Same) and found.outcome is not Outcome.LOST):
        return Outcome.SAME, "came twice" if again else "committed by a worker meanwhile"
    if found.outcome is Outcome.LOST:
        return Outcome.LOST, "its stored bytes were gone, and are there again"
    if isinstance(verdict, Conflict):
        return Outcome.CONFLICT, "was missing, and is kept beside other content under its UID"
    if isinstance(verdict, Quarantined):
        return Outcome.QUARANTINED, f"{found.why}; it was missing"
    return Outcome.NEW, "was missing"
