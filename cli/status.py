"""`sansfilm status`: what runs, what waits in the log, what the archive holds, and the disk."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from dataclasses import asdict, dataclass

from broker.opening import local_usage, waiting_messages
from cli.folder import is_locked
from cli.output import err, fields, out, print_json, size_text, table
from cli.place import Place, require_catalog
from runtime.clock import SystemClock
from runtime.errors import Misconfigured, Retryable
from runtime.health import collect
from runtime.roll import read_roll
from runtime.settings import CommonSettings

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at a data folder."""

    running: bool
    #: ``edge-0`` to whether it is ready.
    processes: dict[str, bool]
    #: Processes that run and do not answer.
    hanging: tuple[str, ...]
    #: Processes that a supervisor means to run and that do not: they ended, and are started again.
    missing: tuple[str, ...]
    #: How often each was started again since its supervisor began.
    restarts: dict[str, int]
    #: Messages not committed yet, by lane.
    lag_messages: dict[str, int]
    #: Messages that this machine's edge has spooled and not shipped yet.
    spool_messages: int
    log_uncommitted_bytes: int
    #: studies, series, instances, versions, conflicts, mixed, quarantined, decisions, bytes.
    archive: dict[str, int]
    #: Whether the archive holds instances and no catalog knows them.
    catalog_missing: bool
    disk_free_bytes: int
    disk_total_bytes: int
    #: Whether the free space lets the edge receive (`disk_reserve_bytes`).
    receiving: bool
    #: Whether the catalog was restored from a backup and has to be brought up to its archive.
    restored: bool

    @property
    def drained(self) -> bool:
        return self.waiting == 0

    @property
    def sound(self) -> bool:
        """Whether everything that is meant to be there is."""
        return not self.missing and not self.catalog_missing

    @property
    def waiting(self) -> int:
        """Messages not committed yet, those that an edge has spooled included."""
        return sum(self.lag_messages.values()) + self.spool_messages


def look(place: Place, *, restored: bool = False) -> Status:
    """Ask every process, the log, the catalog and the disk, once."""
    settings = place.settings
    roll = read_roll(settings.run_dir)  # read first: a process that is started meanwhile is not missing
    processes = collect(settings.run_dir)
    names = {f"{process.role}-{process.index}" for process in processes}
    usage = local_usage(settings)
    disk = shutil.disk_usage(settings.data_dir)
    return Status(
        running=is_locked(settings.data_dir),
        processes={f"{process.role}-{process.index}": process.ready for process in processes},
        hanging=tuple(f"{process.role}-{process.index}" for process in processes if not process.answers),
        missing=tuple(name for name in roll if name not in names),
        restarts=dict(roll),
        lag_messages={lane.value: count for lane, count in waiting_messages(settings).items()},
        spool_messages=sum(usage.uncommitted_messages.values()) if settings.kafka_bootstrap else 0,
        log_uncommitted_bytes=usage.uncommitted_bytes,
        archive=dict(place.reader.counters(settings.tenant)),
        catalog_missing=_is_catalog_missing(settings),
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        receiving=disk.free >= settings.disk_reserve_bytes + 1.1 * usage.uncommitted_bytes,
        restored=restored,
    )


def _is_restored(place: Place) -> bool:
    """Asked of a catalog on PostgreSQL alone: an embedded one is rebuilt instead."""
    if not place.settings.catalog_url.get_secret_value():
        return False
    from archive import tide
    from archive.keeping import open_keeping

    try:
        written = tide.read(place.store)
        with closing(open_keeping(place.settings, SystemClock())) as keeping:
            return tide.is_restored(written, keeping.life())
    except Retryable:  # the store is away: everything else can be said
        return False


def run_status(settings: CommonSettings, *, wait_drained: bool, timeout_s: float, as_json: bool) -> int:
    """Print one look; with `wait_drained` the one in which the log was empty. Gives 1 if it never was.

    Also if a process that is meant to run does not, or if the catalog is missing.
    """
    with Place(settings, without_catalog=True) as place:
        restored = _is_restored(place)
        status = look(place, restored=restored)
        deadline_s = time.monotonic() + timeout_s
        while wait_drained and not (status.drained and status.sound) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            status = look(place, restored=restored)
    if as_json:
        print_json(asdict(status))
    else:
        _show(status)
    if wait_drained and not status.drained:
        err().print(f"sansfilm: {status.waiting} messages still wait after {timeout_s:g} s")
        return 1
    return int(not status.sound)


def _is_catalog_missing(settings: CommonSettings) -> bool:
    try:
        require_catalog(settings)
    except Misconfigured:
        return True
    return False


def _show(status: Status) -> None:
    states = {name: "ready" if ready else "not ready" for name, ready in status.processes.items()}
    states.update(dict.fromkeys(status.hanging, "does not answer"))
    states.update(dict.fromkeys(status.missing, "does not run"))
    if states:
        rows = [(name, state, status.restarts.get(name) or "") for name, state in sorted(states.items())]
        out().print(table("", ("process", "state", "restarts"), rows), "")
    else:
        out().print("nothing runs on this folder (start it with: sansfilm up)\n")
    waiting = f"{status.waiting} messages, {size_text(status.log_uncommitted_bytes)}"
    lanes = ", ".join(f"{lane} {count}" for lane, count in status.lag_messages.items() if count)
    archive = {name: f"{count:,}" for name, count in status.archive.items() if name != "bytes"}
    disk = f"{size_text(status.disk_free_bytes)} free of {size_text(status.disk_total_bytes)}"
    paused = "" if status.receiving else "  (receiving is paused: below the reserve)"
    out().print(
        fields(
            {
                "waiting in the log": waiting + (f" ({lanes})" if lanes else ""),
                "spooled here": f"{status.spool_messages} messages to ship" if status.spool_messages else "",
                **archive,
                "archive": size_text(status.archive.get("bytes", 0)),
                "catalog": _catalog_note(status),
                "disk": disk + paused,
            }
        )
    )


def _catalog_note(status: Status) -> str:
    if status.catalog_missing:
        return "missing: stop sansfilm and run sansfilm archive rebuild"
    return "was restored: run sansfilm archive reconcile" if status.restored else ""
