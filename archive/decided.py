"""What decisions change in the catalog: the current version of an instance, the state of a quarantine entry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, select, update

from archive import insertion, schema
from archive.database import insert_ignoring
from archive.insertion import instance_row
from archive.tally import Tally
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
    if held.current.wire_sha256 == decision.wire_sha256:
        return True
    version, instance, sop = schema.version, schema.instance, schema.sop
    line = select(version.c.record).where(version.c.instance_id == held.instance_id, version.c.number == number)
    placed = decode_placed(connection.execute(line).scalar_one())
    tenant_ids = insertion.tenants(connection, [decision.tenant])
    (above,) = insertion.parents(connection, [placed], tenant_ids)
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
    state = connection.scalar(select(table.c.state).where(here))
    if state is None:
        return False
    closed = QuarantineState.DISCARDED if isinstance(decision, DiscardQuarantined) else QuarantineState.REPLAYED
    values = {"state": closed.value, "decided_at": made.at, "decided_by": made.by}
    connection.execute(update(table).where(here).values(values))
    tally.count(tenant_id, "quarantined", -int(state == QuarantineState.OPEN))
    return True


def enter_quarantine(connection: Connection, placed: PlacedRecord, tenant_id: int, committed_at: str) -> bool:
    """Enter a message in quarantine, once by its id; True if an entry was opened.

    An entry that was replayed and failed again opens again; a discarded one stays closed.
    """
    table, record = schema.quarantine, placed.record
    assert isinstance(record, QuarantineRecord)
    values = {
        "state": QuarantineState.OPEN.value,
        "reason": record.reason.value,
        "detail": record.detail.replace("\0", ""),
        "record": encode_placed(placed).decode(),
        "committed_at": committed_at,
    }
    given = record.attributes
    first = {"tenant_id": tenant_id, "message_id": given.id, "received_at": given.time}
    names = {"calling_ae": given.calling_ae.replace("\0", ""), "called_ae": given.called_ae.replace("\0", "")}
    fresh = insert_ignoring(connection, table).values({**values, **first, **names}).returning(table.c.id)
    if connection.execute(fresh).first():
        return True
    here = (table.c.tenant_id == tenant_id) & (table.c.message_id == given.id)
    replayed = here & (table.c.state == QuarantineState.REPLAYED.value)
    return connection.execute(update(table).where(replayed).values(values)).rowcount > 0
