"""Executes operators' decisions that come through the log, and judges replayed quarantine entries again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archive.catalog import Catalog, CatalogReader, KnownVersion, Scope
from archive.decisions import execute
from archive.segment_store import SegmentStore
from broker.log import Taken
from runtime.logs import get_logger
from schemas.decisions import ReplayQuarantined, decode_decision
from schemas.record import PlacedRecord, QuarantineRecord
from workers.preparation import AlreadyHeld, Policy, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Executes one decision after the other; called from the committer's thread."""

    store: SegmentStore
    catalog: Catalog
    reader: CatalogReader
    policy: Policy
    equal: Callable[[PlacedRecord, KnownVersion], bool]
    on_conflict: Callable[[PlacedRecord, KnownVersion], None]

    def execute(self, taken: Taken) -> None:
        """Execute the decision in `taken`; idempotent by its message id.

        What is no decision, or is about nothing that exists, is logged and changes nothing. A replayed entry that
        still cannot be filed stays open.

        Raises:
            Retryable: execute it again.
        """
        attributes = taken.message.attributes
        try:
            decision = decode_decision(taken.message.value)
        except ValueError as error:
            get_logger().error("decision_unreadable", message_id=attributes.id, error=str(error))
            return
        if isinstance(decision, ReplayQuarantined) and not self._replay(decision):
            get_logger().warning("replay_failed", quarantine_id=decision.quarantine_id)
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

    def _replay(self, decision: ReplayQuarantined) -> bool:
        """Judge the entry's bytes with the program as it is now; commit them if they can be filed."""
        scope = Scope(principal="worker", tenant=decision.tenant)
        entry = next(iter(self.reader.quarantined(scope, include_closed=True, entry_id=decision.quarantine_id)), None)
        if entry is None:
            return False
        judged = judge(entry["attributes"], self.store.read(entry["location"]), {}, self.policy)
        if isinstance(judged, AlreadyHeld) or isinstance(judged.record, QuarantineRecord):
            return False
        put = self.store.put(decision.tenant, [judged])
        placed = PlacedRecord(record=judged.record, location=put.locations[0])
        self.catalog.commit_batch([placed], equal=self.equal, on_conflict=self.on_conflict, segments=[put.key])
        return True
