"""`sansfilm trace`: everything known of a study, series or instance, patient attributes excepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from broker.opening import waiting_here, waiting_messages
from cli.output import fields, out, print_json, table
from cli.place import Place
from runtime.errors import Misconfigured
from runtime.settings import CommonSettings

_DETAILED_MAX = 3
_COLUMNS = ("sop_instance_uid", "current", "verdict", "received_at", "calling_ae", "stored_transfer_syntax", "segment")

_HELD_FIELDS = ("id", "reason", "state", "received_at", "calling_ae", "log_position")
_WAITING_MAX = 1000


def run_trace(settings: CommonSettings, uid: str, *, as_json: bool) -> int:
    """Print what the catalog knows and what waits in this machine's log; a few versions in full, many as a table.

    Raises:
        Misconfigured: nothing is known under `uid`.
    """
    if not uid.strip():
        raise Misconfigured("give the UID of a study, a series or an instance")
    waiting = _waiting(settings, uid)  # asked first: what is committed meanwhile is found below
    with Place(settings) as place:
        place.note("trace", uid)
        rows = list(place.reader.trace(place.scope, uid))
        held = list(place.reader.quarantined(place.scope, include_closed=True, about=uid))
    if not rows and not held and not waiting:
        raise Misconfigured(_unknown(settings, uid))
    if as_json:
        print_json({"uid": uid, "versions": rows, "quarantined": held, "waiting": waiting})
        return 0
    _show_versions(rows)
    if held:
        out().print("[bold]in quarantine[/bold]")
    for entry in held:
        out().print(fields({name: entry[name] for name in _HELD_FIELDS}), "")
    if waiting:
        out().print("[bold]acknowledged and not committed yet[/bold]")
        out().print(table("", tuple(waiting[0]), [list(one.values()) for one in waiting]))
    return 0


def _show_versions(rows: Sequence[Mapping[str, Any]]) -> None:
    if len(rows) <= _DETAILED_MAX:
        for row in rows:
            out().print(fields(row), "")
    else:
        out().print(table(f"{len(rows)} versions", _COLUMNS, [[row[name] for name in _COLUMNS] for row in rows]))
    elsewhere = sum(row["study_instance_uid"] != row["filed_in_study"] for row in rows)
    if any(row["patient_ids_differ"] for row in rows):
        out().print("[bold]instances of this study came under different Patient IDs[/bold]\n")
    if elsewhere:
        out().print(f"{elsewhere} of these came under another study than their instance is filed in (conflict ls)", "")


def _waiting(settings: CommonSettings, uid: str) -> list[dict[str, str]]:
    """Messages of this machine's log that concern `uid`: `_WAITING_MAX` of them at most."""
    found = (
        one
        for one in waiting_here(settings)
        if one.tenant == settings.tenant and uid in (one.study_uid, one.sop_instance_uid, one.id)
    )
    return [
        {
            "id": one.id,
            "lane": one.lane.value,
            "received_at": one.time,
            "calling_ae": one.calling_ae,
            "sop_instance_uid": one.sop_instance_uid,
        }
        for one in islice(found, _WAITING_MAX)
    ]


def _unknown(settings: CommonSettings, uid: str) -> str:
    sentence = f"nothing is known of {uid} in tenant {settings.tenant}, and nothing of it waits in this machine's log"
    if not settings.kafka_bootstrap:
        return sentence
    return f"{sentence}; {sum(waiting_messages(settings).values())} messages in Kafka are not committed yet"
