"""`sansfilm quarantine`: what could not be filed, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from cli.place import Place
    from schemas.decisions import Decision

quarantine = typer.Typer(no_args_is_help=True, help="Instances that could not be filed: list, show, replay, discard.")

DataDir = Annotated[Optional[Path], typer.Option(help="Folder of everything this machine keeps.")]  # noqa: UP045
Tenant = Annotated[Optional[str], typer.Option(help="Tenant asked about.")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
EntryId = Annotated[str, typer.Argument(metavar="ID", help="An id that `quarantine ls` shows.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why, for the journal; no patient's name.", show_default=False)]
WaitS = Annotated[float, typer.Option(min=0, help="Longest wait until the worker has executed it, in seconds.")]


@quarantine.command("ls")
def ls(
    everything: Annotated[bool, typer.Option("--all", help="Closed entries too.")] = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List entries: id, reason, when and from whom."""
    from archive.catalog import QUARANTINED_MAX
    from cli.output import out, print_json, table
    from cli.place import open_place

    with open_place(data_dir, tenant) as place:
        place.note("quarantine")
        entries = list(place.reader.quarantined(place.scope, include_closed=everything))
    if as_json:
        print_json(entries)
        return
    if not entries:
        out().print("nothing is in quarantine")
        return
    columns = ("id", "reason", "state", "received_at", "calling_ae", "detail")
    out().print(table("", columns, [[entry[name] for name in columns] for entry in entries]))
    if len(entries) >= QUARANTINED_MAX:
        out().print(f"these are the first {QUARANTINED_MAX:,}: decide some of them to see the others", style="dim")


@quarantine.command()
def show(
    entry_id: EntryId,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Write the bytes, as received, to this new file.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show one entry, and with --output save its bytes."""
    from cli.output import fields, out, print_json
    from cli.place import open_place

    with open_place(data_dir, tenant) as place:
        place.note("quarantine")
        entry = _entry(place, entry_id)
        if output is not None:
            _save(place, entry, output)
    if as_json:
        print_json(entry)
    else:
        out().print(fields({name: value for name, value in entry.items() if name not in ("attributes", "location")}))
        out().print(fields(entry["attributes"].to_headers()))


@quarantine.command()
def replay(
    entry_id: EntryId,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    reason: Reason = "",
    wait_s: WaitS = 15.0,
    as_json: Json = False,
) -> None:
    """Judge an entry again, with the program as it is now. It is filed, or stays as it is: exit code 1.

    A discarded one may be judged again too: its bytes are kept.
    """
    from schemas.decisions import ReplayQuarantined

    decide = partial(ReplayQuarantined, reason=reason)
    _close(entry_id, data_dir, tenant, wait_s, as_json, decide, becomes="replayed", after=("open", "discarded"))


@quarantine.command()
def discard(
    entry_id: EntryId,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    reason: Reason = "",
    wait_s: WaitS = 15.0,
    as_json: Json = False,
) -> None:
    """Close an entry without filing it. Its bytes stay in the archive."""
    from schemas.decisions import DiscardQuarantined

    decide = partial(DiscardQuarantined, reason=reason)
    _close(entry_id, data_dir, tenant, wait_s, as_json, decide, becomes="discarded", after=("open",))


def _close(
    entry_id: str,
    data_dir: Path | None,
    tenant: str | None,
    wait_s: float,
    as_json: bool,
    decide: Callable[..., Decision],
    *,
    becomes: str,
    after: tuple[str, ...],
) -> None:
    from cli.output import out, print_json
    from cli.place import open_place
    from runtime.errors import Misconfigured

    with open_place(data_dir, tenant) as place:
        state = _entry(place, entry_id)["state"]
        if state not in after:
            raise Misconfigured(f"quarantine entry {entry_id} is closed already: {state}")
        decision = decide(tenant=place.scope.tenant, quarantine_id=entry_id)
        closed = place.decide(decision, lambda: _entry(place, entry_id)["state"] == becomes, wait_s=wait_s)
        entry = _entry(place, entry_id)
    if as_json:
        print_json({"id": entry_id, "state": entry["state"]})
    else:
        why = "" if closed else f": it still cannot be filed ({entry['reason']}: {entry['detail']})"
        out().print(f"{entry_id}: {entry['state']}{why}", soft_wrap=True)
    if not closed:
        raise typer.Exit(1)


def _entry(place: Place, entry_id: str) -> Mapping[str, Any]:
    from runtime.errors import Misconfigured

    for entry in place.reader.quarantined(place.scope, include_closed=True, entry_id=entry_id):
        return entry
    raise Misconfigured(f"there is no quarantine entry {entry_id} in tenant {place.scope.tenant}")


def _save(place: Place, entry: Mapping[str, Any], output: Path) -> None:
    from runtime.errors import Misconfigured

    try:
        with output.open("xb") as file:
            for piece in place.store.stream(entry["location"]):
                file.write(piece)
    except FileExistsError as error:
        raise Misconfigured(f"{output} exists already: name a new file") from error
    except OSError as error:
        raise Misconfigured(f"{output} cannot be written: {error.strerror}") from error
