"""Steps 4 to 6 with what the worker has at hand: opens claims, chooses the policy by the room left, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from archive.catalog import Catalog
from archive.segment_store import SegmentStore
from broker.log import Taken
from runtime import metrics
from runtime.logs import get_logger
from schemas.reasons import KeptReason, QuarantineReason
from schemas.record import InstanceRecord, QuarantineRecord
from workers.claims import claim_of, opened
from workers.pipeline import Batch
from workers.preparation import Judged, KnownVersions, Policy, judge, positioned, quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Judges messages; called from the pool's threads."""

    store: SegmentStore
    catalog: Catalog
    policy: Policy
    #: Whether there is room to write a claim check of so many bytes a second time, before the first one goes.
    can_rewrite: Callable[[int], bool]

    def hint(self, taken: Sequence[Taken]) -> KnownVersions:
        """What is committed under the UIDs of these messages, by (tenant, SOP Instance UID)."""
        uids: dict[str, list[str]] = {}
        for one in taken:
            attributes = one.message.attributes
            uids.setdefault(attributes.tenant, []).append(attributes.sop_instance_uid)
        return {
            (tenant, uid): versions
            for tenant, wanted in uids.items()
            for uid, versions in self.catalog.known(tenant, wanted).items()
        }

    def judge(self, taken: Taken, known: KnownVersions) -> Judged:
        """A member to put, or nothing to do."""
        message, policy = taken.message, self.policy
        if message.attributes.data_ref and not self.can_rewrite(message.attributes.size_bytes):
            policy = replace(policy, transcode="keep", kept_reason=KeptReason.NO_ROOM)
        with opened(message, self.store, memory_max_bytes=policy.transcode_max_bytes) as file:
            judged = judge(message.attributes, file, known, policy, claim_of(message.attributes))
        _count(judged)
        return positioned(judged, taken.position)

    def killer(self, taken: Taken) -> Batch:
        """A message that was alone in flight at three deaths: quarantined without being looked into."""
        message = taken.message
        with opened(message, self.store, memory_max_bytes=self.policy.transcode_max_bytes) as file:
            detail = "its worker died three times while it was alone in flight"
            claim = claim_of(message.attributes)
            entry = quarantine(message.attributes, file, QuarantineReason.KILLS_WORKER, detail, claim)
        _count(entry)
        return Batch(taken=[taken], members=[positioned(entry, taken.position)])


def _count(judged: Judged) -> None:
    record = getattr(judged, "record", None)
    if isinstance(record, QuarantineRecord):
        metrics.QUARANTINED.labels(record.reason).inc()
        get_logger().warning("instance_quarantined", message_id=record.attributes.id, reason=record.reason)
    elif isinstance(record, InstanceRecord) and record.kept_reason:
        metrics.KEPT.labels(record.kept_reason).inc()
