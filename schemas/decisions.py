"""What an operator decided. A decision travels through the log like an instance and is executed by the worker."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class UseVersion:
    """Make one stored version of an instance the current one (``sansfilm conflict use``)."""

    tenant: str
    sop_instance_uid: str
    #: `wire_sha256` of the version to use, in full.
    wire_sha256: str
    #: Why, in the operator's words: for the journal, never for a log.
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayQuarantined:
    """Judge a quarantined instance again, with the program as it is now (``sansfilm quarantine replay``)."""

    tenant: str
    #: The message id under which it was received.
    quarantine_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardQuarantined:
    """Close a quarantine entry without filing it; its bytes stay in the archive (``sansfilm quarantine discard``)."""

    tenant: str
    quarantine_id: str
    reason: str = ""


Decision = UseVersion | ReplayQuarantined | DiscardQuarantined

_KINDS: dict[str, type[UseVersion] | type[ReplayQuarantined] | type[DiscardQuarantined]] = {
    "use_version": UseVersion,
    "replay_quarantined": ReplayQuarantined,
    "discard_quarantined": DiscardQuarantined,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_decision(decision: Decision) -> bytes:
    """The decision as JSON in UTF-8, with a ``decision`` field that names its kind; without a reason if it has none."""
    said = {name: value for name, value in asdict(decision).items() if name != "reason" or value}
    return json.dumps({"decision": _NAMES[type(decision)], **said}, sort_keys=True).encode()


def decode_decision(encoded: bytes | bytearray | memoryview) -> Decision:
    """The inverse of `encode_decision`.

    Raises:
        ValueError: not a decision this version knows; the message is to be quarantined, not dropped.
    """
    try:
        given = json.loads(bytes(encoded))
        return _KINDS[given.pop("decision")](**given)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a decision: {type(error).__name__}") from error
