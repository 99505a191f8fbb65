"""The counts that a transaction changes: per series, per study, per tenant. Kept as they change, never counted.

Written last, in the order series, studies, tenants and by id within each: these are the rows that transactions share,
and whoever holds one waits for later ones only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import Connection, Table, bindparam, case, select, update

from archive import schema
from archive.studies import StudyRow, complete
from archive.wording import ROWS_PER_STATEMENT, insert_adding, one_of

#: `mixed`: studies that came under different Patient IDs.
CounterName = Literal[
    "studies", "series", "instances", "versions", "conflicts", "mixed", "quarantined", "decisions", "bytes"
]
COUNTERS: Final[tuple[CounterName, ...]] = (
    "studies", "series", "instances", "versions", "conflicts", "mixed", "quarantined", "decisions", "bytes",
)  # fmt: skip


@dataclass(slots=True)
class Change:
    """What one transaction adds to a study or a series."""

    instances: int = 0
    conflicts: int = 0
    received_at: str = ""


@dataclass(slots=True)
class Tally:
    """The changes of one transaction; `write` applies them at its end."""

    studies: dict[int, Change] = field(default_factory=lambda: defaultdict(Change))
    series: dict[int, Change] = field(default_factory=lambda: defaultdict(Change))
    counters: Counter[tuple[int, CounterName]] = field(default_factory=Counter)
    #: What instances said of their studies, by id: added to what the studies say of themselves.
    said: dict[int, StudyRow] = field(default_factory=dict)

    def add(
        self, *, study_id: int, series_id: int, instances: int = 0, conflicts: int = 0, received_at: str = ""
    ) -> None:
        """Instances and instances in conflict that came to a study and a series; negative if they left."""
        for change in (self.studies[study_id], self.series[series_id]):
            change.instances += instances
            change.conflicts += conflicts
            change.received_at = max(change.received_at, received_at)

    def count(self, tenant_id: int, name: CounterName, by: int = 1) -> None:
        """Add to a tenant's counter."""
        self.counters[tenant_id, name] += by

    def write(self, connection: Connection) -> None:
        """Apply everything, as the last thing before the transaction ends."""
        _add_counts(connection, schema.series, self.series, received=False)
        for tenant_id in complete(connection, self.said):
            self.count(tenant_id, "mixed")
        _add_counts(connection, schema.study, self.studies, received=True)
        self._follow_series(connection)
        self._follow_studies(connection)
        rows = [
            {"tenant_id": tenant_id, "name": name, "value": by}
            for (tenant_id, name), by in sorted(self.counters.items())
            if by
        ]
        if rows:
            connection.execute(insert_adding(connection, schema.counter, "value"), rows)

    def _follow_series(self, connection: Connection) -> None:
        """Series that became visible or empty change their study's count and modalities."""
        series, study = schema.series, schema.study
        #: Studies in which a series turned, and by how many there are more.
        turned: dict[int, int] = {}
        for ids in chunks(self.series):
            columns = (series.c.id, series.c.study_id, study.c.tenant_id, series.c.instance_count)
            found = connection.execute(select(*columns).join(study).where(one_of(connection, series.c.id, ids)))
            for series_id, study_id, tenant_id, count in found:
                if by := _turned(count, self.series[series_id].instances):
                    turned[study_id] = turned.get(study_id, 0) + by
                    self.count(tenant_id, "series", by)
        rows = [
            {"at": study_id, "more": turned[study_id], "now": modalities}
            for study_id, modalities in sorted(_modalities(connection, list(turned)).items())
        ]
        if rows:
            values = {"series_count": study.c.series_count + bindparam("more"), "modalities": bindparam("now")}
            connection.execute(update(study).where(study.c.id == bindparam("at")).values(values), rows)

    def _follow_studies(self, connection: Connection) -> None:
        study = schema.study
        for ids in chunks(self.studies):
            columns = (study.c.id, study.c.tenant_id, study.c.instance_count)
            for study_id, tenant_id, count in connection.execute(
                select(*columns).where(one_of(connection, study.c.id, ids))
            ):
                self.count(tenant_id, "studies", _turned(count, self.studies[study_id].instances))


def chunks(ids: Iterable[int]) -> Iterable[list[int]]:
    """`ids` in pieces that fit into one statement."""
    listed = list(ids)
    return (listed[start : start + ROWS_PER_STATEMENT] for start in range(0, len(listed), ROWS_PER_STATEMENT))


def _add_counts(connection: Connection, table: Table, changes: Mapping[int, Change], *, received: bool) -> None:
    rows = [
        {"row": row, "instances": change.instances, "conflicts": change.conflicts, "at": change.received_at}
        for row, change in sorted(changes.items(), key=lambda item: item[0])
    ]
    if not rows:
        return
    values = {
        "instance_count": table.c.instance_count + bindparam("instances"),
        "conflict_count": table.c.conflict_count + bindparam("conflicts"),
    }
    if received:
        before = table.c.received_at
        values["received_at"] = case((before < bindparam("at"), bindparam("at")), else_=before)
    else:
        rows = [{name: row[name] for name in ("row", "instances", "conflicts")} for row in rows]
    connection.execute(update(table).where(table.c.id == bindparam("row")).values(values), rows)


def _turned(count: int, change: int) -> int:
    """1 if `change` made something of nothing, -1 if it left nothing."""
    if change > 0 and count == change:
        return 1
    return -1 if change < 0 and count == 0 else 0


def _modalities(connection: Connection, study_ids: list[int]) -> dict[int, str]:
    """ModalitiesInStudy of studies, over their visible series."""
    series = schema.series
    found: dict[int, set[str]] = {study_id: set() for study_id in study_ids}
    for ids in chunks(study_ids):
        rows = select(series.c.study_id, series.c.modality).where(one_of(connection, series.c.study_id, ids))
        visible = rows.where(series.c.instance_count > 0, series.c.modality != "").distinct()
        for study_id, modality in connection.execute(visible):
            found[study_id].add(modality)
    return {study_id: "\\".join(sorted(modalities)) for study_id, modalities in found.items()}
