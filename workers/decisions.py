"""Operators' decisions that come through the log: read and judged with their batch, executed after its instances."""

from __future__ import annotations

from dataclasses import dataclass

from archive.catalog import Catalog, CatalogReader, Scope
from archive.decisions import execute
from archive.segment_store import SegmentStore
from broker.log import Taken
from runtime.logs import get_logger
from schemas.decisions import Decision, ReplayQuarantined, decode_decision
from schemas.reasons import QuarantineReason
from schemas.record import QuarantineRecord
from segments.tar import SegmentDamaged
from workers.claims import Claims
from workers.preparation import AlreadyHeld, Member, Policy, judge, positioned, quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """What a decision comes to."""

    taken: Taken
    #: To be executed once the batch is committed; None: nothing is.
    decision: Decision | None = None
    #: To be put and committed with the batch: a replayed instance, or the quarantine entry of what is no decision.
    member: Member | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Considers decisions in the pool's threads, and executes them on the committer's."""

    claims: Claims
    store: SegmentStore
    catalog: Catalog
    reader: CatalogReader
    policy: Policy

    def consider(self, taken: Taken) -> Considered:
        """Read the decision in `taken`, and judge what it replays with the program as it is now.

        What is no decision that this program knows is quarantined. A replayed entry that cannot be filed stays open.

        Raises:
            Retryable: the store or the catalog is away.
        """
        attributes = taken.message.attributes
        try:
            decision = decode_decision(taken.message.value)
        except ValueError as error:
            get_logger().error("decision_unreadable", message_id=attributes.id, error=str(error))
            entry = quarantine(attributes, taken.message.value, QuarantineReason.PARSE_FAILED, str(error))
            return Considered(taken=taken, member=positioned(entry, taken.position))
        if not isinstance(decision, ReplayQuarantined):
            return Considered(taken=taken, decision=decision)
        if (member := self._replayed(decision)) is None:
            get_logger().warning("replay_failed", quarantine_id=decision.quarantine_id)
            return Considered(taken=taken)
        return Considered(taken=taken, decision=decision, member=member)

    def execute(self, considered: Considered) -> None:
        """Execute a decision; idempotent by its message id. One about nothing that exists changes nothing.

        Raises:
            Retryable: execute it again.
        """
        attributes, decision = considered.taken.message.attributes, considered.decision
        if decision is None:
            return
        done = execute(
            self.catalog,
            self.store,
            decision,
            decision_id=attributes.id,
            decided_at=attributes.time,
            decided_by=attributes.source,
        )
        get_logger().info("decision_executed", message_id=attributes.id, kind=type(decision).__name__, applied=done)

    def _replayed(self, decision: ReplayQuarantined) -> Member | None:
        """The instance that the entry's bytes are; None if they cannot be filed, or are not there."""
        scope = Scope(principal="worker", tenant=decision.tenant)
        entry = next(iter(self.reader.quarantined(scope, include_closed=True, entry_id=decision.quarantine_id)), None)
        if entry is None:
            return None
        attributes, location = entry["attributes"], entry["location"]
        try:
            file = self.claims.member(location)
        except (FileNotFoundError, SegmentDamaged) as error:
            get_logger().error("quarantined_bytes_lost", segment=location.segment, error=type(error).__name__)
            return None
        judged = judge(attributes, file, {}, self.policy, location if attributes.data_ref else None)
        if isinstance(judged, AlreadyHeld) or isinstance(judged.record, QuarantineRecord):
            return None
        return judged
