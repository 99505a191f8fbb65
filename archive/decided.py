"""What decisions change in the catalog: the current version of an instance, the state of a quarantine entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from archive import insertion, schema
from archive.insertion import instance_row, stored_text
from archive.tally import Tally
from archive.wording import ROWS_PER_STATEMENT, hold_names, insert_ignoring, one_of
from schemas.decisions import Decision, DiscardQuarantined, ReplayQuarantined, UseVersion
from schemas.record import PlacedRecord, QuarantineRecord, decode_placed, encode_placed


class QuarantineState(StrEnum):
    """What became of a quarantine entry."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A decision and who made it when."""

    decision: Decision
    id: str
    at: str
    by: str


def apply(connection: Connection, made: Made) -> bool:
    """Execute a decision once; False if what it is about does not exist (it may be tried again later)."""
    decision = schema.decision
    hold_names(connection, [f"decision {made.id}"])  # redelivered to another worker while this one is at it
    if connection.execute(select(decision.c.kind).where(decision.c.decision_id == made.id)).first():
        return True
    tenant_id = connection.scalar(select(schema.tenant.c.id).where(schema.tenant.c.name == made.decision.tenant))
    if tenant_id is None:
        return False
    tally = Tally()
    if isinstance(made.decision, UseVersion):
        done = _use_version(connection, made.decision, tally)
    else:
        done = _close_quarantine(connection, made.decision, made, tenant_id, tally)
    if done:
        row = {"decision_id": made.id, "tenant_id": tenant_id, "decided_at": made.at, "decided_by": made.by}
        connection.execute(insert_ignoring(connection, decision), {**row, "kind": type(made.decision).__name__})
        tally.count(tenant_id, "decisions")
        tally.write(connection)
    return done


def use_digest(connection: Connection, tenant: str, sop_instance_uid: str, wire_sha256: str) -> bool:
    """Make the version with this digest the current one; False if there is none. Counts follow."""
    tally = Tally()
    chosen = UseVersion(tenant=tenant, sop_instance_uid=sop_instance_uid, wire_sha256=wire_sha256)
    done = _use_version(connection, chosen, tally)
    tally.write(connection)
    return done


def _use_version(connection: Connection, decision: UseVersion, tally: Tally) -> bool:
    key = (decision.tenant, decision.sop_instance_uid)
    held = insertion.held(connection, [key]).get(key)
    numbers = {version.wire_sha256: place for place, version in enumerate(held.versions, 1)} if held else {}
    number = numbers.get(decision.wire_sha256)
    if held is None or number is None:
        return False
    version, instance, sop = schema.version, schema.instance, schema.sop
    line = select(version.c.record).where(version.c.instance_id == held.instance_id, version.c.number == number)
    placed = decode_placed(connection.execute(line).scalar_one())
    tenant_ids = insertion.tenants(connection, [decision.tenant])
    (above,) = insertion.parents(connection, [placed], tenant_ids, tally)
    insertion.lock_instances(connection, [held])
    held = insertion.held(connection, [key])[key]
    if held.current.wire_sha256 == decision.wire_sha256:
        return True
    conflicts, received_at = int(len(held.versions) > 1), placed.record.attributes.time
    tally.add(study_id=held.study_id, series_id=held.series_id, instances=-1, conflicts=-conflicts)
    tally.add(
        study_id=above.study_id, series_id=above.series_id, instances=1, conflicts=conflicts, received_at=received_at
    )
    values = {"study_id": above.study_id, "series_id": above.series_id, "current_number": number}
    described = instance_row(insertion.filed(placed))
    connection.execute(update(instance).where(instance.c.id == held.instance_id).values({**values, **described}))
    here = (sop.c.tenant_id == above.tenant_id) & (sop.c.sop_instance_uid == decision.sop_instance_uid)
    connection.execute(update(sop).where(here).values(study_id=above.study_id))
    return True


def _close_quarantine(
    connection: Connection, decision: ReplayQuarantined | DiscardQuarantined, made: Made, tenant_id: int, tally: Tally
) -> bool:
    table = schema.quarantine
    here = (table.c.tenant_id == tenant_id) & (table.c.message_id == decision.quarantine_id)
    state = connection.scalar(select(table.c.state).where(here).with_for_update())
    if state is None:
        return False
    closed = QuarantineState.DISCARDED if isinstance(decision, DiscardQuarantined) else QuarantineState.REPLAYED
    values = {"state": closed.value, "decided_at": made.at, "decided_by": made.by}
    connection.execute(update(table).where(here).values(values))
    tally.count(tenant_id, "quarantined", -int(state == QuarantineState.OPEN))
    return True


def enter_quarantine(
    connection: Connection, batch: Sequence[PlacedRecord], tenant_ids: Mapping[str, int], committed_at: str
) -> list[tuple[int, QuarantineRecord]]:
    """Enter messages in quarantine, each once by its id; gives the entries that were opened, with their tenants' rows.

    An entry that was replayed and failed again opens again; a discarded one stays closed.
    """
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    records: dict[tuple[int, str], QuarantineRecord] = {}
    for placed in batch:
        assert isinstance(placed.record, QuarantineRecord)
        row = _quarantine_row(placed, tenant_ids[placed.record.attributes.tenant], committed_at)
        rows.setdefault((row["tenant_id"], row["message_id"]), row)
        records.setdefault((row["tenant_id"], row["message_id"]), placed.record)
    if not rows:
        return []
    table = schema.quarantine
    fresh = insert_ignoring(connection, table).returning(table.c.tenant_id, table.c.message_id)
    ordered = [rows[key] for key in sorted(rows)]
    opened = {(tenant_id, message_id) for tenant_id, message_id in connection.execute(fresh, ordered)}
    again = _reopen(connection, {key: rows[key] for key in sorted(rows) if key not in opened})
    return [(key[0], records[key]) for key in [*sorted(opened), *again]]


def _reopen(connection: Connection, rows: Mapping[tuple[int, str], Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Open the entries among `rows` that were replayed; gives which."""
    table, listed, reopened = schema.quarantine, list(rows), []
    for start in range(0, len(listed), ROWS_PER_STATEMENT):
        piece = listed[start : start + ROWS_PER_STATEMENT]
        here = one_of(connection, table.c.tenant_id, {key[0] for key in piece})
        found = select(table.c.id, table.c.tenant_id, table.c.message_id).where(
            here,
            one_of(connection, table.c.message_id, [key[1] for key in piece]),
            table.c.state == QuarantineState.REPLAYED.value,
        )
        for at, *key in connection.execute(found.order_by(table.c.id).with_for_update()):
            if tuple(key) in rows:
                reopened.append((at, (key[0], key[1])))
    if reopened:
        names = ("state", "reason", "detail", "record", "committed_at")
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
        changes = [{"at": at, **{f"new_{name}": rows[key][name] for name in names}} for at, key in reopened]
        connection.execute(update(table).where(table.c.id == bindparam("at")).values(values), changes)
    return [key for _, key in reopened]


def _quarantine_row(placed: PlacedRecord, tenant_id: int, committed_at: str) -> dict[str, Any]:
    record = placed.record
    assert isinstance(record, QuarantineRecord)
    given = record.attributes
    return {
        "tenant_id": tenant_id,
        "message_id": stored_text(given.id),
        "state": QuarantineState.OPEN.value,
        "reason": record.reason.value,
        "detail": stored_text(record.detail),
        "record": encode_placed(placed).decode(),
        "received_at": stored_text(given.time),
        "committed_at": committed_at,
        "calling_ae": stored_text(given.calling_ae),
        "called_ae": stored_text(given.called_ae),
    }
