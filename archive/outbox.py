"""The outbox: what other systems are to be told, written by the transaction that did it, until it is published.

One row a batch, study and verdict; whoever publishes makes an event of each instance in it. Where nobody publishes (an
embedded catalog, which no other system reads) the rows are few words and the oldest ones go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select

from archive import schema
from archive.wording import insert_replacing, insert_rows, is_postgres, one_of
from runtime.faults import reach
from schemas.events import Event, InstanceCommitted, InstanceQuarantined, StudyStable
from schemas.record import InstanceRecord, QuarantineRecord

#: Events kept in an embedded catalog; the oldest go first.
OUTBOX_ROWS_MAX: Final = 10_000
STUDY_CHANGED: Final = "sansfilm.study.changed.v1"
#: How far rows that wait are counted.
COUNTED_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one commit did to a study: instances of one verdict."""

    study_id: int
    tenant_id: int
    verdict: str
    records: Sequence[InstanceRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Rows that are not published yet."""

    rows: int
    #: When the oldest was written (RFC 3339); empty if there is none.
    oldest_at: str


# ---- writing, in the transaction of a commit -----------------------------------------------------------------------


def write(
    connection: Connection,
    changes: Sequence[Change],
    quarantined: Iterable[tuple[int, QuarantineRecord]],
    committed_at: str,
) -> None:
    """Note what a commit did; `quarantined` are the entries that it opened, each with its tenant's row."""
    uids = _study_uids(connection, {change.study_id for change in changes})
    rows = [_changed(connection, change, uids[change.study_id], committed_at) for change in changes]
    if not is_postgres(connection):
        if rows:
            connection.execute(insert(schema.outbox), rows)
            _trim(connection)
        return
    rows += _quarantined(quarantined, committed_at)
    if rows:
        insert_rows(connection, schema.outbox, rows)
    unstable = [{"study_id": study_id, "changed_at": committed_at} for study_id in sorted(uids)]
    if unstable:
        # In the order of their ids, and before the counts: two commits wait for each other in one direction only.
        connection.execute(insert_replacing(connection, schema.study_unstable), unstable)


def _changed(connection: Connection, change: Change, study_uid: str, committed_at: str) -> dict[str, Any]:
    row = {"tenant_id": change.tenant_id, "created_at": committed_at}
    said: dict[str, Any] = {"study_instance_uid": study_uid, "verdict": change.verdict}
    if not is_postgres(connection):
        payload = json.dumps({**said, "instances": len(change.records)})
        return {**row, "type": STUDY_CHANGED, "payload": payload}
    said["instances"] = [
        {
            "id": record.attributes.id,
            "series_instance_uid": record.series.series_instance_uid,
            "sop_instance_uid": record.instance.sop_instance_uid,
            "sop_class_uid": record.instance.sop_class_uid,
            "wire_sha256": record.wire_sha256,
            "received_at": record.attributes.time,
        }
        for record in change.records
    ]
    return {**row, "type": InstanceCommitted.type, "payload": json.dumps(said)}


def _quarantined(entries: Iterable[tuple[int, QuarantineRecord]], committed_at: str) -> list[dict[str, Any]]:
    by_tenant: dict[int, list[dict[str, str]]] = {}
    for tenant_id, record in entries:
        said = {
            "id": record.attributes.id,
            "study_instance_uid": record.attributes.study_uid,
            "sop_instance_uid": record.attributes.sop_instance_uid,
            "reason": record.reason.value,
            "received_at": record.attributes.time,
        }
        by_tenant.setdefault(tenant_id, []).append(said)
    return [
        {
            "tenant_id": tenant_id,
            "type": InstanceQuarantined.type,
            "created_at": committed_at,
            "payload": json.dumps({"instances": said}),
        }
        for tenant_id, said in sorted(by_tenant.items())
    ]


def _study_uids(connection: Connection, ids: set[int]) -> dict[int, str]:
    study = schema.study
    if not ids:
        return {}
    named = select(study.c.id, study.c.study_instance_uid).where(one_of(connection, study.c.id, ids))
    return dict(connection.execute(named).all())


def _trim(connection: Connection) -> None:
    outbox = schema.outbox
    kept = select(func.max(outbox.c.id) - OUTBOX_ROWS_MAX).scalar_subquery()
    connection.execute(delete(outbox).where(outbox.c.id <= kept))


# ---- publishing, on PostgreSQL -------------------------------------------------------------------------------------


def publish(connection: Connection, deliver: Callable[[Sequence[Event]], None], *, rows_max: int) -> int:
    """Give the oldest rows' events to `deliver`, then delete the rows; gives how many rows there were.

    They are locked meanwhile: another one that publishes takes the rows behind them. When `deliver` raises, or the
    process dies, nothing is deleted.
    """
    outbox, tenant = schema.outbox, schema.tenant
    columns = (outbox.c.id, tenant.c.name, outbox.c.type, outbox.c.created_at, outbox.c.payload)
    oldest = select(*columns).join(tenant).order_by(outbox.c.id).limit(rows_max)
    rows = connection.execute(oldest.with_for_update(of=outbox, skip_locked=True)).all()
    if rows:
        deliver([event for _, name, kind, at, payload in rows for event in _events(name, kind, at, payload)])
        reach("relay.published")
        connection.execute(delete(outbox).where(one_of(connection, outbox.c.id, [row[0] for row in rows])))
    return len(rows)


def note_stable(connection: Connection, *, unchanged_since: str, now: str, studies_max: int) -> int:
    """Queue an event for each study that did not change since a time; gives how many there were."""
    unstable, study = schema.study_unstable, schema.study
    due = select(unstable.c.study_id).where(unstable.c.changed_at < unchanged_since).order_by(unstable.c.changed_at)
    ids = list(connection.scalars(due.limit(studies_max).with_for_update(skip_locked=True)))
    if not ids:
        return 0
    gone = delete(unstable).where(one_of(connection, unstable.c.study_id, ids))
    changed = dict(connection.execute(gone.returning(unstable.c.study_id, unstable.c.changed_at)).all())
    counts = (study.c.id, study.c.tenant_id, study.c.study_instance_uid, study.c.series_count, study.c.instance_count)
    rows = []
    for study_id, tenant_id, uid, series, instances in connection.execute(
        select(*counts).where(one_of(connection, study.c.id, ids)).order_by(study.c.id)
    ):
        said = {"study_instance_uid": uid, "changed_at": changed[study_id], "series": series, "instances": instances}
        row = {"tenant_id": tenant_id, "type": StudyStable.type, "created_at": now, "payload": json.dumps(said)}
        rows.append(row)
    insert_rows(connection, schema.outbox, rows)
    return len(ids)


def waiting(connection: Connection) -> Waiting:
    """How many rows wait (up to `COUNTED_MAX`), and since when."""
    outbox = schema.outbox
    some = select(outbox.c.id).limit(COUNTED_MAX).subquery()
    rows = int(connection.scalar(select(func.count()).select_from(some)) or 0)
    oldest = connection.scalar(select(outbox.c.created_at).order_by(outbox.c.id).limit(1))
    return Waiting(rows=rows, oldest_at=oldest or "")


def _events(tenant: str, kind: str, at: str, payload: str) -> list[Event]:
    """The events of a row; none of one that a program before this one wrote for nobody."""
    said: Mapping[str, Any] = json.loads(payload)
    if kind == InstanceCommitted.type:
        shared = {"tenant": tenant, "time": at, **{name: said[name] for name in ("study_instance_uid", "verdict")}}
        return [InstanceCommitted(**shared, **one) for one in said["instances"]]
    if kind == InstanceQuarantined.type:
        return [InstanceQuarantined(tenant=tenant, time=at, **one) for one in said["instances"]]
    if kind == StudyStable.type:
        event_id = f"{said['study_instance_uid']}@{said['changed_at']}"
        return [StudyStable(id=event_id, tenant=tenant, time=at, **said)]
    return []
