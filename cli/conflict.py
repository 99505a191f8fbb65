"""`sansfilm conflict`: instances with more than one version, and which version is current."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from cli.place import Place

conflict = typer.Typer(no_args_is_help=True, help="Instances with more than one version: list, choose the current one.")

DataDir = Annotated[Optional[Path], typer.Option(help="Folder of everything this machine keeps.")]  # noqa: UP045
Tenant = Annotated[Optional[str], typer.Option(help="Tenant asked about.")]  # noqa: UP045
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
_DIGEST_MIN = 8


@conflict.command("ls")
def ls(data_dir: DataDir = None, tenant: Tenant = None, as_json: Json = False) -> None:
    """List instances with more than one version, the newest conflict first, and their versions."""
    from cli.output import out, print_json, table
    from cli.place import open_place

    with open_place(data_dir, tenant) as place:
        place.note("conflict")
        rows = [version for uid in place.reader.conflicts(place.scope) for version in _versions(place, uid)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out().print("no instance has more than one version")
        return
    columns = ("current", "wire_sha256", "sop_instance_uid", "study_instance_uid", "received_at", "calling_ae")
    for row in rows:
        row.update(current="→" if row["current"] else "", wire_sha256=row["wire_sha256"][:16])
    out().print(table("", ("", *columns[1:]), [[row[name] for name in columns] for row in rows]))
    out().print("\nchoose with: sansfilm conflict use SOP_INSTANCE_UID WIRE_SHA256", style="dim")


@conflict.command()
def use(
    sop_instance_uid: Annotated[str, typer.Argument(help="The instance.", show_default=False)],
    wire_sha256: Annotated[
        str, typer.Argument(help="The version: its digest, or the first 8 or more digits.", show_default=False)
    ],
    data_dir: DataDir = None,
    tenant: Tenant = None,
    reason: Annotated[str, typer.Option(help="Why, for the journal; no patient's name.", show_default=False)] = "",
    wait_s: Annotated[float, typer.Option(min=0, help="Longest wait until the worker has executed it.")] = 15.0,
    as_json: Json = False,
) -> None:
    """Make one version of an instance the current one. The others stay, and may be chosen again."""
    from cli.output import out, print_json
    from cli.place import open_place
    from runtime.errors import Retryable
    from schemas.decisions import UseVersion

    with open_place(data_dir, tenant) as place:
        place.note("conflict", sop_instance_uid)
        digest = _full_digest(place, sop_instance_uid, wire_sha256.lower())
        decision = UseVersion(
            tenant=place.scope.tenant, sop_instance_uid=sop_instance_uid, wire_sha256=digest, reason=reason
        )
        if not place.decide(decision, lambda: _is_current(place, sop_instance_uid, digest), wait_s=wait_s):
            raise Retryable("the decision was executed and another followed it: see sansfilm conflict ls")
    if as_json:
        print_json({"sop_instance_uid": sop_instance_uid, "current": digest})
    else:
        out().print(f"{sop_instance_uid}: version {digest[:16]} is current")


def _versions(place: Place, uid: str) -> list[dict[str, Any]]:
    return [
        {
            "sop_instance_uid": uid,
            "current": known.current,
            "wire_sha256": known.wire_sha256,
            "study_instance_uid": known.study_instance_uid,
            "received_at": record.attributes.time,
            "calling_ae": record.attributes.calling_ae,
        }
        for known, record in place.reader.versions(place.scope, uid)
    ]


def _full_digest(place: Place, uid: str, given: str) -> str:
    from runtime.errors import Misconfigured

    digests = [known.wire_sha256 for known, _ in place.reader.versions(place.scope, uid)]
    if not digests:
        raise Misconfigured(f"there is no instance {uid} in tenant {place.scope.tenant}")
    fitting = [digest for digest in digests if digest.startswith(given)]
    if len(fitting) != 1 or len(given) < _DIGEST_MIN:
        raise Misconfigured(f"{given} names no single version of {uid}: give more digits of one in conflict ls")
    return fitting[0]


def _is_current(place: Place, uid: str, digest: str) -> bool:
    return any(known.current and known.wire_sha256 == digest for known, _ in place.reader.versions(place.scope, uid))
