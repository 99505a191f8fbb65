"""The account after faults: what was acknowledged, held against what is committed."""

from __future__ import annotations

import hashlib
from collections import Counter

from archive.catalog import CatalogReader, Scope
from archive.segment_store import SegmentStore
from instances.part10 import split
from schemas.message import Lane
from schemas.reasons import KeptReason
from schemas.record import InstanceRecord, QuarantineRecord
from tests.crash.ledger import Ledger

SCOPE = Scope(principal="test", tenant="default")


def check_account(
    reader: CatalogReader, store: SegmentStore, ledger: Ledger
) -> Counter[tuple[Lane, KeptReason | None]]:
    """Every acknowledged content is there exactly once, and nothing else; counters equal counts.

    That each gives back what was sent, `archive verify` finds out. Gives how many versions came by which lane, and
    were kept as they came for which reason.
    """
    committed: Counter[tuple[str, str]] = Counter()
    filed: Counter[tuple[Lane, KeptReason | None]] = Counter()
    quarantined = set()
    for placed, _ in reader.placed():
        if isinstance(placed.record, QuarantineRecord):
            quarantined.add(hashlib.sha256(split(store.read(placed.location))[1]).hexdigest())
            assert placed.record.reason == "missing_uid"
            continue
        assert isinstance(placed.record, InstanceRecord)
        committed[placed.record.instance.sop_instance_uid, placed.record.wire_sha256] += 1
        filed[placed.record.attributes.lane, placed.record.kept_reason] += 1
    assert set(committed.values()) == {1}
    assert ledger.acknowledged.keys() - committed.keys() == set()
    assert committed.keys() - ledger.offered == set()
    assert {digest for _, digest in ledger.unfileable_acknowledged} - quarantined == set()
    assert quarantined - {digest for _, digest in ledger.unfileable_offered} == set()
    versions = Counter(uid for uid, _ in committed)
    assert sorted(reader.conflicts(SCOPE)) == sorted(uid for uid, count in versions.items() if count > 1)
    counters = reader.counters(SCOPE.tenant)
    counted = {
        "instances": len(versions),
        "versions": len(committed),
        "conflicts": sum(count > 1 for count in versions.values()),
    }
    assert {name: counters[name] for name in counted} == counted
    return filed
