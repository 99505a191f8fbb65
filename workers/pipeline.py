"""Steps 4 to 9 of an instance's way, and nothing else: judge, put, commit, commit the positions.

Each step is one method, in order; what a step needs is in the module it calls. A step may be repeated after a passing
fault: what the batch did already is kept in it, so nothing is put twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from archive.catalog import Catalog, Equal, OnConflict, OnSame, Same, SegmentCondemned, Verdict
from archive.segment_store import AdoptedMember, SegmentStore
from broker.log import Consumer, Taken
from runtime.faults import reach
from schemas.identifiers import SegmentKey
from schemas.message import DECISION_MADE
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord, Record
from workers.claims import carried
from workers.decisions import Considered
from workers.healing import heal
from workers.preparation import AlreadyHeld, Judged, KnownVersions, LostVersion, Member

Identity = tuple[str, str, str]
"""Tenant, instance and digest of its content; or, of what cannot be filed, tenant and message."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """What one batch has come to so far."""

    taken: Sequence[Taken]
    #: Steps 4 to 6: what is to be put; the same content once.
    members: Sequence[Member] = ()
    decisions: Sequence[Considered] = ()
    #: Claim checks of these messages, and segments in which what is held already lies.
    claims: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    #: Step 7: by tenant, the segment and its members with their places.
    segments: dict[str, SegmentKey] = field(default_factory=dict)
    placed: dict[str, Sequence[PlacedRecord]] = field(default_factory=dict)
    #: Step 8: whether the catalog has them, and how many messages came to which verdict.
    committed: bool = False
    verdicts: Counter[str] = field(default_factory=Counter)
    #: The same, record by record.
    decided: Sequence[tuple[PlacedRecord, Verdict]] = ()

    @property
    def same(self) -> Sequence[PlacedRecord]:
        """What was put and is committed from elsewhere."""
        return [one for one, verdict in self.decided if isinstance(verdict, Same)]

    @property
    def idle_claims(self) -> Sequence[str]:
        """Claim checks of a committed batch in which nothing lies that it committed: rewritten, or held already.

        Another batch may have committed them: ask the catalog.
        """
        same = {one.location.segment for one in self.same}
        adopted = {one.location.segment for one in self.members if isinstance(one, AdoptedMember)}
        return sorted(self.claims - self.held - (adopted - same))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filing:
    """Steps 7 and 8: what was judged is put and committed, wherever its messages came from."""

    store: SegmentStore
    catalog: Catalog
    equal: Equal
    on_conflict: OnConflict
    #: Where several processes put.
    on_same: OnSame | None = None

    def put(self, batch: Batch) -> None:
        """Step 7: one immutable segment per tenant, durable on return."""
        self._put_missing(batch)
        reach("worker.put")

    def commit(self, batch: Batch) -> None:
        """Step 8: one catalog transaction, which alone decides New, Same, Conflict.

        Raises:
            SegmentCondemned: the batch came too late for the collector; the next attempt puts it again.
        """
        if not batch.committed:
            self._put_missing(batch)
            self._commit_placed(batch)
        batch.committed = True
        heal(self.store, self.catalog, batch.same)

    def _put_missing(self, batch: Batch) -> None:
        for tenant, members in _by_tenant(batch.members).items():
            if tenant not in batch.placed:
                put = self.store.put(tenant, members)
                batch.segments[tenant], batch.placed[tenant] = put.key, _place(members, put.locations)

    def _commit_placed(self, batch: Batch) -> None:
        placed = [one for group in batch.placed.values() for one in group]
        if not placed:
            return
        try:
            verdicts = self.catalog.commit_batch(
                placed,
                equal=self.equal,
                on_conflict=self.on_conflict,
                on_same=self.on_same,
                segments=list(batch.segments.values()),
            )
        except SegmentCondemned as error:
            for tenant in {key.partition("/")[0] for key in error.keys}:
                batch.segments.pop(tenant, None)
                batch.placed.pop(tenant, None)
            batch.members = [carried(one, error.keys, self.store) for one in batch.members]
            raise
        batch.verdicts.update(_label(verdict) for verdict in verdicts)
        batch.decided = list(zip(placed, verdicts, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(Filing):
    """The rooms that a batch of the log goes through."""

    consumer: Consumer
    hint: Callable[[Sequence[Taken]], KnownVersions]
    judge: Callable[[Taken, KnownVersions], Judged | LostVersion]
    threads: Executor
    consider: Callable[[Taken], Considered]
    execute: Callable[[Considered], None]

    def prepare(self, taken: Sequence[Taken]) -> Batch:
        """Steps 4 to 6: parse, look for a hint, transcode with proof; message by message, in the pool's threads."""
        reach("worker.taken")
        batch = Batch(taken=taken)
        instances = [one for one in taken if not is_decision(one)]
        known = self.hint(instances)
        judged = list(self.threads.map(lambda one: self.judge(one, known), instances))
        batch.decisions = list(self.threads.map(self.consider, filter(is_decision, taken)))
        beside = [one.member for one in batch.decisions if one.member is not None]
        fit = [one for one in judged if not isinstance(one, LostVersion)]
        batch.members = distinct([*fit, *beside], batch.verdicts)
        batch.claims = frozenset(filter(None, (one.message.attributes.data_ref for one in instances)))
        batch.held = frozenset(one.location.segment for one in judged if isinstance(one, AlreadyHeld))
        reach("worker.prepared")
        return batch

    def commit(self, batch: Batch) -> None:
        """Step 8, as `Filing.commit`; then the operators' decisions."""
        Filing.commit(self, batch)
        for decision in batch.decisions:
            self.execute(decision)
        reach("worker.committed")

    def commit_positions(self, batch: Batch) -> None:
        """Step 9: the log may forget these messages."""
        self.consumer.commit(taken.position for taken in batch.taken)


def is_decision(taken: Taken) -> bool:
    """Whether a message is an operator's decision rather than an instance."""
    return taken.message.attributes.type == DECISION_MADE


def distinct(judged: Iterable[Judged], verdicts: Counter[str]) -> list[Member]:
    """What is to be put: neither what is held already nor the same content a second time."""
    members: dict[Identity, Member] = {}
    for one in judged:
        if isinstance(one, AlreadyHeld) or identity_of(one.record) in members:
            verdicts["same"] += 1
        else:
            members[identity_of(one.record)] = one
    return list(members.values())


def identity_of(record: Record) -> Identity:
    """What two records of one batch are the same by."""
    if isinstance(record, InstanceRecord):
        return record.attributes.tenant, record.instance.sop_instance_uid, record.wire_sha256
    return record.attributes.tenant, record.attributes.id, ""


def _by_tenant(members: Sequence[Member]) -> dict[str, list[Member]]:
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.record.attributes.tenant].append(member)
    return groups


def _place(members: Sequence[Member], locations: Sequence[MemberLocation]) -> list[PlacedRecord]:
    pairs = zip(members, locations, strict=True)
    return [PlacedRecord(record=member.record, location=location) for member, location in pairs]


def _label(verdict: Verdict) -> str:
    return type(verdict).__name__.lower()
