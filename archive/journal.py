"""The journal: what members cannot say. Each entry is durable before what it says takes effect.

An entry is JSON with ``kind``, ``tenant`` (where it is about one), ``at`` (RFC 3339) and what the kind adds:

* ``conflict``: ``sop_instance_uid wire_sha256 current_wire_sha256 message_id``. A further version was kept, and the
  version that was current stayed so.
* ``decision``: ``id by decision`` (as `schemas.decisions.encode_decision` has it). An operator decided.
* ``same``: ``receipts``, pairs of SOP Instance UID and message id. What was received so is content of a committed
  version that another message brought: it is none, whatever the order of its segment.
* ``compacted``: ``keys replaces origins``. What counted of the segments `replaces` is in `keys`, each record with its
  origin: the id of the segment in whose place it was committed.
* ``condemned``: ``keys``, of any tenant. Segments that no transaction had committed and none will; they are deleted.

Entries are written more than once if a transaction is repeated; reading them in order of their ids gives the same end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from archive.catalog import KnownVersion, OnSame
from archive.segment_store import SegmentStore
from runtime.clock import Clock, rfc3339
from runtime.faults import reach
from schemas.decisions import Decision, decode_decision, encode_decision
from schemas.record import InstanceRecord, PlacedRecord

CONFLICT: Final = "conflict"
DECISION: Final = "decision"
SAME: Final = "same"
COMPACTED: Final = "compacted"
CONDEMNED: Final = "condemned"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictNoted:
    """Other content came under a known UID; `current_wire_sha256` stayed the current version."""

    tenant: str
    sop_instance_uid: str
    wire_sha256: str
    current_wire_sha256: str
    message_id: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionNoted:
    """An operator's decision, to be executed once by its id."""

    id: str
    decision: Decision
    by: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CondemnedNoted:
    """Segments that were never committed and are being deleted: a rebuild passes them by, whether they are gone or not.

    Everything in them is a receipt of messages that were committed from other segments.
    """

    keys: Sequence[str]
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SameNoted:
    """Receipts, by SOP Instance UID and message id, for which those of other messages stand."""

    tenant: str
    receipts: Sequence[tuple[str, str]]
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactedNoted:
    """The segments `keys` hold what counted of `replaces`; `origins` are the ids in whose places it was committed."""

    tenant: str
    keys: Sequence[str]
    replaces: Sequence[str]
    origins: Sequence[str]
    at: str


Entry = ConflictNoted | DecisionNoted | CondemnedNoted | SameNoted | CompactedNoted


def encode_entry(entry: Entry) -> dict[str, object]:
    """What `SegmentStore.put_journal` writes."""
    if isinstance(entry, ConflictNoted):
        names = ("tenant", "sop_instance_uid", "wire_sha256", "current_wire_sha256", "message_id", "at")
        return {"kind": CONFLICT, **{name: getattr(entry, name) for name in names}}
    if isinstance(entry, SameNoted):
        receipts = [list(pair) for pair in entry.receipts]
        return {"kind": SAME, "tenant": entry.tenant, "receipts": receipts, "at": entry.at}
    if isinstance(entry, CompactedNoted):
        said = {"keys": list(entry.keys), "replaces": list(entry.replaces), "origins": list(entry.origins)}
        return {"kind": COMPACTED, "tenant": entry.tenant, **said, "at": entry.at}
    if isinstance(entry, CondemnedNoted):
        return {"kind": CONDEMNED, "keys": list(entry.keys), "at": entry.at}
    decision = json.loads(encode_decision(entry.decision))
    return {
        "kind": DECISION,
        "tenant": entry.decision.tenant,
        "id": entry.id,
        "decision": decision,
        "by": entry.by,
        "at": entry.at,
    }


def decode_entry(body: bytes) -> Entry:
    """The inverse of `encode_entry`.

    Raises:
        ValueError: not an entry this version knows.
    """
    try:
        given: Mapping[str, Any] = json.loads(body)
        if given["kind"] == CONFLICT:
            return ConflictNoted(**{name: value for name, value in given.items() if name != "kind"})
        if given["kind"] == DECISION:
            decision = decode_decision(json.dumps(given["decision"]).encode())
            return DecisionNoted(id=given["id"], decision=decision, by=given["by"], at=given["at"])
        if given["kind"] == SAME:
            receipts = tuple((str(uid), str(message_id)) for uid, message_id in given["receipts"])
            return SameNoted(tenant=given["tenant"], receipts=receipts, at=given["at"])
        if given["kind"] == COMPACTED:
            keys, replaces, origins = (tuple(map(str, given[name])) for name in ("keys", "replaces", "origins"))
            return CompactedNoted(tenant=given["tenant"], keys=keys, replaces=replaces, origins=origins, at=given["at"])
        if given["kind"] == CONDEMNED:
            return CondemnedNoted(keys=tuple(map(str, given["keys"])), at=given["at"])
        raise ValueError("unknown kind")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a journal entry: {type(error).__name__}") from error


def conflict_writer(store: SegmentStore, clock: Clock) -> Callable[[PlacedRecord, KnownVersion], None]:
    """The `on_conflict` of `Catalog.commit_batch`: the verdict is durable before its transaction ends."""

    def note(placed: PlacedRecord, current: KnownVersion) -> None:
        assert isinstance(placed.record, InstanceRecord)
        entry = ConflictNoted(
            tenant=placed.record.attributes.tenant,
            sop_instance_uid=placed.record.instance.sop_instance_uid,
            wire_sha256=placed.record.wire_sha256,
            current_wire_sha256=current.wire_sha256,
            message_id=placed.record.attributes.id,
            at=rfc3339(clock.now()),
        )
        write(store, entry)

    return note


def same_writer(store: SegmentStore, clock: Clock) -> OnSame:
    """The `on_same` of `Catalog.commit_batch`: one entry a transaction and tenant, durable before that ends."""

    def note(found: Sequence[PlacedRecord]) -> None:
        by_tenant: dict[str, list[tuple[str, str]]] = {}
        for placed in found:
            assert isinstance(placed.record, InstanceRecord)
            given = placed.record.attributes
            by_tenant.setdefault(given.tenant, []).append((placed.record.instance.sop_instance_uid, given.id))
        for tenant, receipts in by_tenant.items():
            write(store, SameNoted(tenant=tenant, receipts=receipts, at=rfc3339(clock.now())))

    return note


def write(store: SegmentStore, entry: Entry) -> str:
    """Make an entry durable; gives its key.

    Raises:
        Retryable, OutOfSpace: it may not be durable; nothing that depends on it may happen.
    """
    key = store.put_journal(encode_entry(entry))
    reach("journal.written")
    return key
