"""Executing an operator's decision: in the journal first, then in the catalog."""

from __future__ import annotations

from archive.catalog import Catalog
from archive.journal import DecisionNoted, write
from archive.segment_store import SegmentStore
from schemas.decisions import Decision, UseVersion


def execute(
    catalog: Catalog, store: SegmentStore, decision: Decision, *, decision_id: str, decided_at: str, decided_by: str
) -> bool:
    """Execute `decision` once; False if there is nothing it could be about, and then nothing is written.

    Idempotent by `decision_id`: a redelivered decision is written to the journal again and changes nothing.
    A replayed quarantine entry is only marked here: the caller judges its bytes again and commits what comes of it,
    also when the decision is redelivered.

    Raises:
        Retryable: not executed, or nobody knows; execute it again.
    """
    if isinstance(decision, UseVersion) and not _exists(catalog, decision):
        return False
    write(store, DecisionNoted(id=decision_id, decision=decision, by=decided_by, at=decided_at))
    return catalog.apply(decision, decision_id=decision_id, decided_at=decided_at, decided_by=decided_by)


def _exists(catalog: Catalog, decision: UseVersion) -> bool:
    known = catalog.known(decision.tenant, [decision.sop_instance_uid]).get(decision.sop_instance_uid, ())
    return any(version.wire_sha256 == decision.wire_sha256 for version in known)
