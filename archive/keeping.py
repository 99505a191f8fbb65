"""The keeper's end of the catalog: what becomes of segments, and who does which duty. PostgreSQL only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from archive import fate, incarnation, insertion, moving, outbox, schema
from archive.errors import mapped_errors
from archive.fate import Fate
from archive.incarnation import Incarnation
from archive.moving import Held, Move, Small
from archive.outbox import Waiting
from archive.postgres import Bounds, bounds_of, checked, writer_engine
from archive.wording import ROWS_PER_STATEMENT, one_of
from runtime.clock import Clock, rfc3339
from runtime.errors import Misconfigured
from runtime.faults import reach
from runtime.settings import CommonSettings
from schemas.events import Event
from schemas.record import InstanceRecord, PlacedRecord

#: "keeper", before the number of a duty.
_LOCKS = "sansfilm keeper "


def open_keeping(settings: CommonSettings, clock: Clock) -> KeeperCatalog:
    """The catalog that the settings name; closed by its owner.

    Raises:
        Misconfigured: it is embedded, not reachable, or not as it must be; says what to do.
    """
    url = settings.catalog_url.get_secret_value()
    if not url:
        raise Misconfigured(
            "the keeper works on a catalog in PostgreSQL (SANSFILM_CATALOG_URL); an embedded archive needs none"
        )
    return open_postgres_keeping(url, bounds=bounds_of(settings), clock=clock)


def open_postgres_keeping(url: str, *, clock: Clock, bounds: Bounds | None = None) -> KeeperCatalog:
    """The same for the PostgreSQL database at `url`."""
    bounds = bounds or Bounds()
    return KeeperCatalog(checked(writer_engine(url, bounds), url), clock=clock)


class KeeperCatalog:
    """One connection, for one thread; closed by its owner. Every method raises Retryable where the database is away."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        """`engine` is this catalog's from now on."""
        self._engine = engine
        self._clock = clock

    # ---- what becomes of segments ----

    def without_row(self, keys: Collection[str]) -> Sequence[str]:
        """Those of `keys` of which no transaction knows, in their order."""
        with mapped_errors(), self._engine.connect() as connection:
            return fate.without_row(connection, keys)

    def condemn(self, keys: Collection[str]) -> Sequence[str]:
        """Let no transaction refer to these from now on; gives those of which none did."""
        with mapped_errors(), self._engine.begin() as connection:
            return fate.condemn(connection, keys, rfc3339(self._clock.now()))

    def live(self, keys: Collection[str]) -> Sequence[str]:
        """Those of `keys` that are committed."""
        with mapped_errors(), self._engine.connect() as connection:
            return fate.live(connection, keys)

    def due(self, of: Fate, before: str, *, limit: int) -> Sequence[str]:
        """Segments that have this fate since before a time (RFC 3339), and whose bytes may be there."""
        with mapped_errors(), self._engine.connect() as connection:
            return fate.due(connection, of, before, limit)

    def note_gone(self, keys: Collection[str]) -> None:
        """Their bytes are gone."""
        with mapped_errors(), self._engine.begin() as connection:
            fate.note_gone(connection, keys)

    def note_fates(self, *, condemned: Collection[str], replaced: Collection[str]) -> None:
        """Say what another life of the catalog had said of segments of which this one knows nothing."""
        at = rfc3339(self._clock.now())
        for keys, say in ((condemned, fate.condemn), (replaced, fate.note_replaced)):
            listed = sorted(keys)
            for start in range(0, len(listed), ROWS_PER_STATEMENT):
                with mapped_errors(), self._engine.begin() as connection:
                    say(connection, listed[start : start + ROWS_PER_STATEMENT], at)

    def has_all(self, placed: Sequence[PlacedRecord]) -> bool:
        """Whether the content of every one of these records is committed, wherever it lies.

        Asked by digest: of content that is equal element by element under another digest the answer is no.
        """
        with mapped_errors(), self._engine.connect() as connection:
            return _has_instances(connection, placed) and _has_quarantined(connection, placed)

    # ---- moving ----

    def tenants(self) -> Mapping[int, str]:
        """Every tenant: row and name."""
        with mapped_errors(), self._engine.connect() as connection:
            return moving.tenants_of(connection)

    def small(self, tenant_id: int, committed_before: str, *, limit: int) -> Sequence[Small]:
        """The oldest segments of a tenant that are not settled."""
        with mapped_errors(), self._engine.connect() as connection:
            return moving.small(connection, tenant_id, committed_before, limit)

    def settle(self, keys: Collection[str]) -> None:
        """The compactor need not look at these again."""
        if keys:
            with mapped_errors(), self._engine.begin() as connection:
                moving.settle(connection, keys)

    def held(self, tenant: str, lines: Sequence[PlacedRecord]) -> Sequence[Held]:
        """Versions in the segments where these records lie, and the quarantine entries of their messages."""
        keys = {line.location.segment for line in lines}
        ids = {line.record.attributes.id for line in lines if not isinstance(line.record, InstanceRecord)}
        with mapped_errors(), self._engine.begin() as connection:
            return self._held(connection, tenant, keys, ids)

    def swap(self, tenant: str, moves: Sequence[Move], *, written: Collection[str], replaced: Collection[str]) -> None:
        """Send readers to where things lie now, all or none; raises Overtaken, SegmentCondemned."""
        at = rfc3339(self._clock.now())
        with mapped_errors(), self._engine.begin() as connection:
            moving.swap(connection, tenant, moves, written=written, replaced=replaced, at=at)

    def follow(
        self, tenant: str, lines: Sequence[PlacedRecord], *, written: Collection[str], replaced: Collection[str]
    ) -> int:
        """Of a compaction that this catalog does not know: move what it still has in the segments replaced."""
        at = rfc3339(self._clock.now())
        ids = {line.record.attributes.id for line in lines if not isinstance(line.record, InstanceRecord)}
        wanted = {_identity(line): line for line in lines}
        with mapped_errors(), self._engine.begin() as connection:
            held = self._held(connection, tenant, replaced, ids)
            moves = [Move(held=one, to=wanted[one.identity]) for one in held if one.identity in wanted]
            if moves:
                moving.swap(connection, tenant, moves, written=written, replaced=replaced, at=at, all_or_nothing=False)
        return len(moves)

    @staticmethod
    def _held(connection: Connection, tenant: str, keys: Collection[str], ids: Collection[str]) -> Sequence[Held]:
        entries = moving.quarantined_of(connection, tenant, ids) if ids else []
        return [*moving.held_in(connection, keys), *(one for one in entries if one.segment in keys)]

    # ---- the catalog's life ----

    def life(self) -> Incarnation:
        """Which life this is, and its tide."""
        with mapped_errors(), self._engine.connect() as connection:
            return incarnation.read(connection)

    def raise_tide(self) -> Incarnation:
        """Raise the tide by one, durably."""
        with mapped_errors(), self._engine.begin() as connection:
            incarnation.raise_tide(connection)
            return incarnation.read(connection)

    def begin_anew(self, *, at_least: int) -> Incarnation:
        """Begin another life, with a tide above `at_least`: what was restored has been brought up to date."""
        with mapped_errors(), self._engine.begin() as connection:
            incarnation.begin_anew(connection, above=at_least)
            return incarnation.read(connection)

    def knows_decision(self, decision_id: str) -> bool:
        """Whether an operator's decision was executed."""
        table = schema.decision
        with mapped_errors(), self._engine.connect() as connection:
            return (
                connection.execute(select(table.c.kind).where(table.c.decision_id == decision_id)).first() is not None
            )

    # ---- events ----

    def publish(self, deliver: Callable[[Sequence[Event]], None], *, rows_max: int) -> int:
        """Deliver the oldest events and forget them, in one transaction; gives how many rows of them there were."""
        with mapped_errors(), self._engine.begin() as connection:
            rows = outbox.publish(connection, deliver, rows_max=rows_max)
        reach("relay.deleted")
        return rows

    def note_stable(self, *, unchanged_since: str, studies_max: int) -> int:
        """Queue events of studies that did not change since a time (RFC 3339); gives how many."""
        with mapped_errors(), self._engine.begin() as connection:
            now = rfc3339(self._clock.now())
            return outbox.note_stable(connection, unchanged_since=unchanged_since, now=now, studies_max=studies_max)

    def waiting_events(self) -> Waiting:
        """Rows of events that are not published yet."""
        with mapped_errors(), self._engine.connect() as connection:
            return outbox.waiting(connection)

    def close(self) -> None:
        """Release the database."""
        self._engine.dispose()


class DutyLock:
    """The right to do a duty, held by a session of its own as long as that lives. Used by one thread."""

    def __init__(self, url: str, duty: str, bounds: Bounds) -> None:
        self._engine = writer_engine(url, bounds).execution_options(isolation_level="AUTOCOMMIT")
        self._duty = duty
        self._session: Connection | None = None

    def is_ours(self) -> bool:
        """Whether this process has the duty now; takes it if nobody has it.

        Raises:
            Retryable: the database is away; the duty is nobody's, or another one's.
        """
        asked = select(func.pg_try_advisory_lock(func.hashtextextended(f"{_LOCKS}{self._duty}", 0)))
        try:
            with mapped_errors():
                self._session = self._session or self._engine.connect()
                return bool(self._session.scalar(asked))
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """Leave the duty to another process."""
        self._drop()
        self._engine.dispose()

    def _drop(self) -> None:
        if self._session is not None:
            try:
                self._session.invalidate()  # the session may be alive and hold the lock: it must end
                self._session.close()
            except DBAPIError:
                pass
            self._session = None


def _identity(placed: PlacedRecord) -> tuple[str, str]:
    record = placed.record
    if isinstance(record, InstanceRecord):
        return insertion.stored_text(record.instance.sop_instance_uid), record.wire_sha256
    return insertion.stored_text(record.attributes.id), ""


def _has_instances(connection: Connection, placed: Sequence[PlacedRecord]) -> bool:
    filed = [one for one in placed if isinstance(one.record, InstanceRecord)]
    held = insertion.held(connection, dict.fromkeys(map(insertion.key_of, filed)))
    known = {key: {version.wire_sha256 for version in one.versions} for key, one in held.items()}
    return all(one.record.wire_sha256 in known.get(insertion.key_of(one), ()) for one in filed)


def _has_quarantined(connection: Connection, placed: Sequence[PlacedRecord]) -> bool:
    """A message that could not be filed then may have been filed since."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for one in placed:
        if not isinstance(one.record, InstanceRecord):
            wanted[one.record.attributes.tenant].add(insertion.stored_text(one.record.attributes.id))
    quarantine, tenant = schema.quarantine, schema.tenant
    for name, ids in wanted.items():
        rows = select(quarantine.c.message_id).join(tenant).where(tenant.c.name == name)
        if set(connection.scalars(rows.where(one_of(connection, quarantine.c.message_id, ids)))) != ids:
            return False
    return True
