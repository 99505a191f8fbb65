"""Steps 4 to 6 with what the worker has at hand: opens claims, chooses the policy by the room left, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from archive.catalog import Catalog, CatalogReader, Scope
from archive.segment_store import Buffer
from broker.log import Taken
from runtime import metrics
from runtime.logs import get_logger
from schemas.message import MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason
from schemas.record import InstanceRecord, QuarantineRecord
from segments.tar import SegmentDamaged
from workers.claims import Claims, claim_of
from workers.healing import is_there
from workers.pipeline import Batch
from workers.preparation import (
    AlreadyHeld,
    Judged,
    KnownVersions,
    LostVersion,
    Policy,
    judge,
    positioned,
    quarantine,
)
from workers.receipts import receipts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Judges messages; called from the pool's threads."""

    claims: Claims
    catalog: Catalog
    reader: CatalogReader
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

    def judge(self, taken: Taken, known: KnownVersions) -> Judged | LostVersion:
        """A member to put, or nothing to do, or nothing that can be done.

        Raises:
            Retryable: the store or the catalog is away.
        """
        message, policy = taken.message, self.policy
        if message.attributes.data_ref and not self.can_rewrite(message.attributes.size_bytes):
            policy = replace(policy, transcode="keep", kept_reason=KeptReason.NO_ROOM)
        try:
            file = self.claims.file(message)
        except (FileNotFoundError, SegmentDamaged) as error:
            found = self._without_claim(taken, error)
            if isinstance(found, LostVersion):
                return found
            judged = found
        else:
            judged = self._judged(message.attributes, file, known, policy)
        _count(judged)
        return positioned(judged, taken.position)

    def killer(self, taken: Taken) -> Batch:
        """A message that was alone in flight at three deaths: quarantined, and neither looked into nor executed."""
        message, claim = taken.message, claim_of(taken.message.attributes)
        detail = "its worker died three times while it was alone in flight"
        entry = quarantine(message.attributes, message.value, QuarantineReason.KILLS_WORKER, detail, claim)
        _count(entry)
        return Batch(taken=[taken], members=[positioned(entry, taken.position)])

    def _judged(self, attributes: MessageAttributes, file: Buffer, known: KnownVersions, policy: Policy) -> Judged:
        claim = claim_of(attributes)
        judged = judge(attributes, file, known, policy, claim)
        if isinstance(judged, AlreadyHeld) and not is_there(self.claims.store, judged.location):
            get_logger().error("committed_segment_lost", message_id=attributes.id, segment=judged.location.segment)
            return judge(attributes, file, {}, policy, claim)  # to be put again: see `workers.healing`
        return judged

    def _without_claim(self, taken: Taken, error: Exception) -> Judged | LostVersion:
        """The claim is not there: it was rewritten and removed, and the log gives its message again; or it is lost,
        before it was committed or after it.
        """
        attributes, claim = taken.message.attributes, claim_of(taken.message.attributes)
        scope = Scope(principal="worker", tenant=attributes.tenant)
        lost: LostVersion | None = None
        for version, _ in receipts_of(attributes, self.reader.versions(scope, attributes.sop_instance_uid)):
            if is_there(self.claims.store, version.location):
                return AlreadyHeld(location=version.location)
            lost = LostVersion(location=version.location)
        if lost is not None:
            segment = lost.location.segment
            get_logger().error("committed_segment_lost", message_id=attributes.id, segment=segment)
            return lost
        get_logger().error("claim_check_lost", message_id=attributes.id, segment=attributes.data_ref)
        detail = f"the segment in which it was received cannot be read whole: {type(error).__name__}"
        return quarantine(attributes, b"", QuarantineReason.CLAIM_LOST, detail, claim)


def _count(judged: Judged) -> None:
    record = getattr(judged, "record", None)
    if isinstance(record, QuarantineRecord):
        metrics.QUARANTINED.labels(record.reason).inc()
        get_logger().warning("instance_quarantined", message_id=record.attributes.id, reason=record.reason)
    elif isinstance(record, InstanceRecord) and record.kept_reason:
        metrics.KEPT.labels(record.kept_reason).inc()
