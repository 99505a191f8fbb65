"""What other systems are told: CloudEvents 1.0 of what was committed. Nothing in them is an attribute of a patient.

An event travels as in the CloudEvents Kafka protocol binding's binary mode: headers ``ce_...``, the data as JSON in the
value, keyed by tenant and study. It is delivered at least once; a repetition has the same id. docs/events.md, with a
JSON Schema of each, is generated from this module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import ClassVar, Final

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCommitted:
    """An instance is in the archive: it can be found and read."""

    type: ClassVar[str] = "sansfilm.instance.committed.v1"
    #: The id of the message by which it was received.
    id: str
    tenant: str
    #: When the catalog's transaction began.
    time: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    verdict: str
    wire_sha256: str
    received_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceQuarantined:
    """An acknowledged message cannot be filed: it waits for an operator. UIDs are those of its sender's command."""

    type: ClassVar[str] = "sansfilm.instance.quarantined.v1"
    #: The id of the message, and of the quarantine entry.
    id: str
    tenant: str
    time: str
    study_instance_uid: str
    sop_instance_uid: str
    reason: str
    received_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStable:
    """Nothing has come to a study for a while. More may come; then it is told of again."""

    type: ClassVar[str] = "sansfilm.study.stable.v1"
    #: The study and its last change: ``<StudyInstanceUID>@<changed_at>``.
    id: str
    tenant: str
    #: When it was found stable.
    time: str
    study_instance_uid: str
    changed_at: str
    series: int
    instances: int


Event = InstanceCommitted | InstanceQuarantined | StudyStable
EVENTS: Final[tuple[type[Event], ...]] = (InstanceCommitted, InstanceQuarantined, StudyStable)

_ENVELOPE: Final = ("id", "tenant", "time")
_MEANINGS: Final = {
    "study_instance_uid": "Study Instance UID; empty where it is not known.",
    "series_instance_uid": "Series Instance UID.",
    "sop_instance_uid": "SOP Instance UID; empty where it is not known.",
    "sop_class_uid": "SOP Class UID.",
    "verdict": "new: the first content under its UID. conflict: other content, kept as a further version.",
    "wire_sha256": "SHA-256 of the data set as received, without group 2.",
    "received_at": "When its last byte was received (RFC 3339).",
    "reason": "Why it cannot be filed: one of a bounded list.",
    "changed_at": "When an instance was committed to the study last (RFC 3339).",
    "series": "Series of the study that have instances.",
    "instances": "Instances of the study.",
}
_ALLOWED: Final = {"verdict": ["new", "conflict"]}


def key_of(event: Event) -> str:
    """The partition key: what is told of a study comes in order."""
    return f"{event.tenant}/{event.study_instance_uid}"


def headers_of(event: Event) -> dict[str, str]:
    """The CloudEvents attributes. Source and id together name an event: a message may be quarantined, then filed."""
    return {
        "ce_specversion": SPEC_VERSION,
        "ce_id": event.id,
        "ce_type": event.type,
        "ce_source": f"/tenants/{event.tenant}/{event.type.split('.')[1]}/{event.type.split('.')[2]}",
        "ce_time": event.time,
        "ce_tenant": event.tenant,
        "content-type": CONTENT_TYPE,
    }


def data_of(event: Event) -> bytes:
    """The data: JSON as `json_schema` says."""
    return json.dumps(
        {name: getattr(event, name) for name in _data_fields(type(event))}, separators=(",", ":")
    ).encode()


def json_schema(event: type[Event]) -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of an event's data."""
    properties: dict[str, object] = {}
    for name in _data_fields(event):
        kind = "integer" if name in ("series", "instances") else "string"
        properties[name] = {"type": kind, "description": _MEANINGS[name]}
        if name in _ALLOWED:
            properties[name] = {"enum": _ALLOWED[name], "description": _MEANINGS[name]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": event.type,
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _data_fields(event: type[Event]) -> list[str]:
    return [field.name for field in fields(event) if field.name not in _ENVELOPE]
