"""The reading end of the catalog: read-only connections, and the only statements that read instance rows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import ColumnElement, Connection, Engine, Row, RowMapping, Select, func, select

from archive import schema
from archive.catalog import QUARANTINED_MAX, Found, InstanceState, KnownVersion, Query, Readable, Scope
from archive.database import reader_engine
from archive.decided import QuarantineState
from archive.errors import mapped_errors
from archive.insertion import filed, known_version
from archive.revisions import check_revision
from archive.search import COUNT_MAX, answer_to, count_of
from archive.studies import is_mixed
from archive.tally import COUNTERS
from archive.wording import one_of
from schemas.record import InstanceRecord, PlacedRecord, decode_placed

if TYPE_CHECKING:
    from archive.postgres import Bounds

#: Records read by one statement while iterating.
PAGE_ROWS: Final = 500
CONFLICTS_MAX: Final = 10_000

_study, _series, _instance, _version = schema.study, schema.series, schema.instance, schema.version
_segment, _tenant, _quarantine = schema.segment, schema.tenant, schema.quarantine


def open_reader(path: Path) -> SqlCatalogReader:
    """A reader of the catalog in the SQLite file at `path`; while there is no file the archive is empty."""
    return SqlCatalogReader(_FollowedFile(path))


def open_postgres_reader(url: str, *, bounds: Bounds | None = None) -> SqlCatalogReader:
    """A reader of the catalog in the PostgreSQL database at `url`.

    Raises:
        Misconfigured: the server is not reachable, refuses us, or its tables are not ours; the message says what to do.
    """
    from archive import postgres

    bounds = bounds or postgres.Bounds()
    engine = postgres.reader_engine(url, bounds)
    return SqlCatalogReader(_Server(postgres.checked(engine, url, since=schema.READABLE_REVISION)))


class SqlCatalogReader:
    """`archive.catalog.CatalogReader` on SQLAlchemy Core; thread-safe, closed by its owner.

    Each call looks whether the file at the path is still the one that is open, so a reader follows a rebuild.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source

    # ---- searching ----

    def search(self, scope: Scope, query: Query) -> Sequence[Found]:
        """See `CatalogReader.search`."""
        answer = answer_to(scope.tenant, query)
        with self._reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(answer.rows.limit(query.limit).offset(query.offset)).mappings().all()
        return [_found(row, answer.keywords, query) for row in rows]

    def count(self, scope: Scope, query: Query) -> int:
        """See `CatalogReader.count`."""
        with self._reading() as connection:
            if connection is None:
                return 0
            matches = count_of(scope.tenant, query).limit(COUNT_MAX).subquery()
            return int(connection.execute(select(func.count()).select_from(matches)).scalar_one())

    # ---- instances ----

    def instances(
        self, scope: Scope, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Iterator[Readable]:
        """See `CatalogReader.instances`. Which instances is settled at the first step; records follow in pages."""
        for uids in _pages(self._instance_uids(scope, study_uid, series_uid, sop_uid)):
            yield from self._readable(scope, study_uid, uids)

    def _instance_uids(self, scope: Scope, study_uid: str, series_uid: str | None, sop_uid: str | None) -> list[str]:
        wanted: list[ColumnElement[bool]] = []
        if series_uid is not None:
            wanted.append(_series.c.series_instance_uid == series_uid)
        if sop_uid is not None:
            wanted.append(_instance.c.sop_instance_uid == sop_uid)
        order = (_series.c.series_order, _series.c.id, _instance.c.instance_order, _instance.c.sop_instance_uid)
        rows = select(_instance.c.sop_instance_uid).select_from(_VISIBLE).where(*_below(scope, study_uid), *wanted)
        with self._reading() as connection:
            return list(connection.scalars(rows.order_by(*order))) if connection else []

    def _readable(self, scope: Scope, study_uid: str, uids: list[str]) -> Iterator[Readable]:
        """The current versions of `uids`; those that went away meanwhile are left out."""
        rows = select(_instance.c.sop_instance_uid, _version.c.record).select_from(_VISIBLE.join(_version, _current()))
        page = rows.where(*_below(scope, study_uid))
        with self._reading() as connection:
            if connection is None:
                return
            among = one_of(connection, _instance.c.sop_instance_uid, uids)
            found = dict(connection.execute(page.where(among)).all())
        for uid in uids:
            if uid in found:
                yield _readable(decode_placed(found[uid]))

    def versions(self, scope: Scope, sop_uid: str) -> Sequence[tuple[KnownVersion, InstanceRecord]]:
        """See `CatalogReader.versions`."""
        rows = _versions_of(scope).where(schema.sop.c.sop_instance_uid == sop_uid)
        with self._reading() as connection:
            found = connection.execute(rows).all() if connection else []
        return [(known_version(row), filed(decode_placed(row._mapping[_version.c.record]))) for row in found]

    def conflicts(self, scope: Scope) -> Sequence[str]:
        """See `CatalogReader.conflicts`; the newest `CONFLICTS_MAX`."""
        source = _instance.join(_study, _study.c.id == _instance.c.study_id).join(_tenant)
        rows = select(_instance.c.sop_instance_uid).select_from(source).where(_tenant.c.name == scope.tenant)
        newest = rows.where(_instance.c.conflict_version_id.is_not(None)).order_by(
            _instance.c.conflict_version_id.desc()
        )
        with self._reading() as connection:
            return list(connection.scalars(newest.limit(CONFLICTS_MAX))) if connection else []

    # ---- quarantine, trace, counters ----

    def quarantined(
        self, scope: Scope, *, include_closed: bool = False, entry_id: str = "", about: str = ""
    ) -> Sequence[Mapping[str, Any]]:
        """See `CatalogReader.quarantined`; as `QuarantineRecord` fields beside the state."""
        rows = (
            select(_quarantine).join(_tenant).where(_tenant.c.name == scope.tenant).order_by(_quarantine.c.message_id)
        )
        if not include_closed:
            rows = rows.where(_quarantine.c.state == QuarantineState.OPEN.value)
        if entry_id:
            rows = rows.where(_quarantine.c.message_id == entry_id)
        if about:
            rows = rows.where(_quarantine.c.record.contains(about, autoescape=True))
        with self._reading() as connection:
            found = connection.execute(rows.limit(QUARANTINED_MAX)).mappings().all() if connection else []
        entries = [_quarantine_entry(row) for row in found]
        return [entry for entry in entries if _concerns(entry, about)] if about else entries

    def trace(self, scope: Scope, uid: str) -> Sequence[Mapping[str, Any]]:
        """See `CatalogReader.trace`."""
        with self._reading() as connection:
            if connection is None:
                return []
            found = connection.execute(_versions_of(scope).where(schema.sop.c.sop_instance_uid == uid)).all()
            rows = found or _rows_under(connection, scope, uid)
        return [_traced(row._mapping) for row in rows]

    def placed(self) -> Iterator[tuple[PlacedRecord, bool]]:
        """See `CatalogReader.placed`; in order of commit, then quarantine entries (never current).

        Raises:
            Retryable: a rebuild put another catalog in place meanwhile; begin again.
        """
        engine, after = self._engine(), 0
        while page := self._page_after(engine, after):
            after = page[-1][0]
            for _, line, current in page:
                yield decode_placed(line), current
        after = 0
        while entries := self._quarantine_after(engine, after):
            after = entries[-1][0]
            for _, line in entries:
                yield decode_placed(line), False

    def _page_after(self, engine: Engine | None, after: int) -> Sequence[tuple[int, str, bool]]:
        current = _version.c.number == _instance.c.current_number
        rows = select(_version.c.id, _version.c.record, current).select_from(_version.join(_instance))
        return _page(engine, rows.where(_version.c.id > after).order_by(_version.c.id))

    def _quarantine_after(self, engine: Engine | None, after: int) -> Sequence[tuple[int, str]]:
        rows = select(_quarantine.c.id, _quarantine.c.record).where(_quarantine.c.id > after)
        return _page(engine, rows.order_by(_quarantine.c.id))

    def counters(self, tenant: str) -> Mapping[str, int]:
        """See `CatalogReader.counters`."""
        counter = schema.counter
        rows = select(counter.c.name, counter.c.value).join(_tenant).where(_tenant.c.name == tenant)
        with self._reading() as connection:
            kept = dict(connection.execute(rows).all()) if connection else {}
        return {name: kept.get(name, 0) for name in COUNTERS}

    def close(self) -> None:
        """See `CatalogReader.close`."""
        self._source.close()

    @contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        engine = self._engine()
        if engine is None:
            yield None
            return
        with mapped_errors(), engine.connect() as connection:
            yield connection

    def _engine(self) -> Engine | None:
        """The engine of the catalog there is now; None while there is none."""
        return self._source.engine()


class _Source(Protocol):
    """Where a reader finds the catalog."""

    def engine(self) -> Engine | None: ...

    def close(self) -> None: ...


class _FollowedFile:
    """The SQLite file at a path, whichever it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._opened: tuple[tuple[int, int], Engine] | None = None

    def engine(self) -> Engine | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - once a call: a Path's own costs more
        except FileNotFoundError:
            return None
        identity = (status.st_dev, status.st_ino)
        opened = self._opened
        if opened is not None and opened[0] == identity:
            return opened[1]
        with self._lock:
            return self._reopened(identity)

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened[1].dispose()
                self._opened = None

    def _reopened(self, identity: tuple[int, int]) -> Engine:
        if self._opened is not None:
            if self._opened[0] == identity:
                return self._opened[1]
            self._opened[1].dispose()  # connections in use are closed when they are given back
        engine = reader_engine(self._path.resolve())
        with mapped_errors(), engine.connect() as connection:
            check_revision(connection, since=schema.READABLE_REVISION)
        self._opened = (identity, engine)
        return engine


class _Server:
    """A database of a server, always the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def engine(self) -> Engine:
        return self._engine

    def close(self) -> None:
        self._engine.dispose()


#: Instances and what is above them.
_VISIBLE: Final = (
    _tenant.join(_study, _study.c.tenant_id == _tenant.c.id)
    .join(_series, _series.c.study_id == _study.c.id)
    .join(_instance, _instance.c.series_id == _series.c.id)
)


def _below(scope: Scope, study_uid: str) -> tuple[ColumnElement[bool], ...]:
    """What readers see of a study."""
    return (
        _tenant.c.name == scope.tenant,
        _study.c.study_instance_uid == study_uid,
        _instance.c.state == InstanceState.VISIBLE.value,
    )


def _readable(placed: PlacedRecord) -> Readable:
    record = filed(placed)
    return Readable(
        study_instance_uid=record.study.study_instance_uid,
        series_instance_uid=record.series.series_instance_uid,
        record=record,
        location=placed.location,
    )


def _page(engine: Engine | None, rows: Select[Any]) -> Sequence[Any]:
    if engine is None:
        return []
    with mapped_errors(), engine.connect() as connection:
        return [tuple(row) for row in connection.execute(rows.limit(PAGE_ROWS))]


def _current() -> ColumnElement[bool]:
    """Joins an instance to the version that readers see."""
    return (_version.c.instance_id == _instance.c.id) & (_version.c.number == _instance.c.current_number)


def _versions_of(scope: Scope) -> Select[Any]:
    """All versions of a tenant's instances, with their parents, in order of series, instance and commit."""
    sop = schema.sop
    beside = (_instance.c.study_id == sop.c.study_id) & (_instance.c.sop_instance_uid == sop.c.sop_instance_uid)
    source = sop.join(_tenant, _tenant.c.id == sop.c.tenant_id).join(_study, _study.c.id == sop.c.study_id)
    source = source.join(_instance, beside).join(_series, _series.c.id == _instance.c.series_id)
    source = source.join(_version, _version.c.instance_id == _instance.c.id).join(_segment)
    order = (_series.c.series_order, _series.c.id, _instance.c.instance_order, _instance.c.id, _version.c.number)
    rows = select(
        _instance, _version, _segment.c.key, _study.c.study_instance_uid, is_mixed().label("mixed")
    ).select_from(source)
    return rows.where(_tenant.c.name == scope.tenant).order_by(*order)


def _rows_under(connection: Connection, scope: Scope, uid: str) -> Sequence[Row[Any]]:
    """The versions of what is filed in a series, or else in a study; then those that came under it."""
    versions = _versions_of(scope)
    filed_there = connection.execute(versions.where(_series.c.series_instance_uid == uid)).all()
    filed_there = filed_there or connection.execute(versions.where(_study.c.study_instance_uid == uid)).all()
    came = connection.execute(versions.where(_came_under(uid))).all()
    rows = {row._mapping[_version.c.id]: row for row in (*filed_there, *came)}
    return list(rows.values())


def _came_under(uid: str) -> ColumnElement[bool]:
    """Versions that came under this study or series, wherever their instance is filed: it differs in conflicts only."""
    own = (_version.c.study_instance_uid == uid) | (_version.c.series_instance_uid == uid)
    return _instance.c.conflict_version_id.is_not(None) & own


def _pages(uids: list[str]) -> Iterator[list[str]]:
    return (uids[start : start + PAGE_ROWS] for start in range(0, len(uids), PAGE_ROWS))


def _found(row: RowMapping, keywords: Mapping[str, str], query: Query) -> Found:
    values = {keyword: str(row[label]) for keyword, label in keywords.items() if row[label] not in ("", 0)}
    values["NumberOfStudyRelatedSeries"] = str(row["study_series"])
    values["NumberOfStudyRelatedInstances"] = str(row["study_instances"])
    if query.level != "study":
        values["NumberOfSeriesRelatedInstances"] = str(row["series_instances"])
    conflicts = int(row["versions"] > 1) if query.level == "instance" else row["conflicts"]
    held = 0 if query.level == "instance" else row["held"]
    return Found(
        values=values,
        held_count=held,
        conflict_count=conflicts,
        received_at=row["received_at"],
        is_mixed=bool(row["mixed"]),
    )


def _quarantine_entry(row: RowMapping) -> dict[str, Any]:
    names = ("state", "reason", "detail", "received_at", "committed_at", "calling_ae", "called_ae")
    placed = decode_placed(row["record"])
    return {
        "id": row["message_id"],
        **{name: row[name] for name in names},
        "decided_at": row["decided_at"],
        "decided_by": row["decided_by"],
        "attributes": placed.record.attributes,
        "log_position": placed.record.log_position,
        "location": placed.location,
    }


def _concerns(entry: Mapping[str, Any], uid: str) -> bool:
    attributes = entry["attributes"]
    return uid in (attributes.study_uid, attributes.sop_instance_uid, attributes.id)


_TRACED: Final = (
    "number", "verdict", "message_id", "study_instance_uid", "series_instance_uid", "wire_sha256", "pixel_sha256",
    "source", "received_at", "committed_at", "received_transfer_syntax", "stored_transfer_syntax", "kept_reason",
    "warnings", "file_offset", "size_bytes",
)  # fmt: skip


def _traced(at: RowMapping) -> dict[str, Any]:
    record = decode_placed(at[_version.c.record]).record
    given = record.attributes
    return {
        "sop_instance_uid": at[_instance.c.sop_instance_uid],
        "sop_class_uid": at[_instance.c.sop_class_uid],
        "state": at[_instance.c.state],
        "current": at[_version.c.number] == at[_instance.c.current_number],
        "filed_in_study": at[_study.c.study_instance_uid],
        "patient_ids_differ": bool(at["mixed"]),
        **{name: at[_version.c[name]] for name in _TRACED},
        "log_position": record.log_position,
        "segment": at[_segment.c.key],
        "association_id": given.association_id,
        "calling_ae": given.calling_ae,
        "called_ae": given.called_ae,
        "lane": given.lane.value,
    }
