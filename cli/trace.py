"""`sansfilm trace`: everything known of a study, series or instance, patient attributes excepted."""

from __future__ import annotations

from cli.output import fields, out, print_json, table
from cli.place import Place
from runtime.errors import Misconfigured
from runtime.settings import CommonSettings

_DETAILED_MAX = 3
_COLUMNS = ("sop_instance_uid", "current", "verdict", "received_at", "calling_ae", "stored_transfer_syntax", "segment")

_HELD_FIELDS = ("id", "reason", "state", "received_at", "calling_ae", "log_position")


def run_trace(settings: CommonSettings, uid: str, *, as_json: bool) -> int:
    """Print what the catalog knows; a few versions in full, many as a table.

    Raises:
        Misconfigured: nothing is known under `uid`.
    """
    if not uid.strip():
        raise Misconfigured("give the UID of a study, a series or an instance")
    with Place(settings) as place:
        rows = list(place.reader.trace(place.scope, uid))
        held = [entry for entry in place.reader.quarantined(place.scope, include_closed=True) if _concerns(entry, uid)]
    if not rows and not held:
        raise Misconfigured(
            f"nothing is known of {uid} in tenant {settings.tenant}; what was acknowledged a moment ago may still be "
            "in the log: see sansfilm status"
        )
    if as_json:
        print_json({"uid": uid, "versions": rows, "quarantined": held})
        return 0
    if len(rows) <= _DETAILED_MAX:
        for row in rows:
            out().print(fields(row), "")
    else:
        out().print(table(f"{len(rows)} versions", _COLUMNS, [[row[name] for name in _COLUMNS] for row in rows]))
    if held:
        out().print("[bold]in quarantine[/bold]")
    for entry in held:
        out().print(fields({name: entry[name] for name in _HELD_FIELDS}), "")
    return 0


def _concerns(entry: object, uid: str) -> bool:
    attributes = entry["attributes"]  # type: ignore[index]
    return uid in (attributes.study_uid, attributes.sop_instance_uid, attributes.id)
