"""The Store Instances response: which instances were stored, which were not, and why (PS3.18 10.5.3, Annex I.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from xml.sax.saxutils import escape, quoteattr

from schemas.reasons import RejectReason

AnswerType = Literal["application/dicom+json", "application/dicom+xml"]
_VR: Final = {
    "00081150": ("UI", "ReferencedSOPClassUID"),
    "00081155": ("UI", "ReferencedSOPInstanceUID"),
    "00081190": ("UR", "RetrieveURL"),
    "00081197": ("US", "FailureReason"),
    "00081198": ("SQ", "FailedSOPSequence"),
    "00081199": ("SQ", "ReferencedSOPSequence"),
    "0008119A": ("SQ", "OtherFailuresSequence"),
}
_Item = dict[str, "str | int | list[_Item]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StowOutcome:
    """What became of one part. `refused` is None if the instance is durable."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    refused: RejectReason | None = None


def status_of(outcomes: Sequence[StowOutcome]) -> int:
    """200 all stored, 202 some, else what kept them out: 503 if waiting may help, 413, 409 (PS3.18 Table 10.5.3-1)."""
    refused = [outcome.refused for outcome in outcomes if outcome.refused is not None]
    if len(refused) < len(outcomes):
        return 202 if refused else 200
    statuses = {reason.http_status for reason in refused}
    return 503 if 503 in statuses else 413 if statuses == {413} else 409


def encode_answer(outcomes: Sequence[StowOutcome], studies_url: str, answer_type: AnswerType) -> bytes:
    """The response's data set as DICOM JSON (PS3.18 F) or Native DICOM Model (PS3.19 A.1).

    An instance's own Retrieve URL is empty: it is durable, and readable as soon as a worker has filed it.
    """
    dataset = _dataset(outcomes, studies_url)
    if answer_type == "application/dicom+json":
        return json.dumps(_json(dataset)).encode()
    return (
        '<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xml:space="preserve">'
        f"{_xml(dataset)}</NativeDicomModel>"
    ).encode()


def _dataset(outcomes: Sequence[StowOutcome], studies_url: str) -> _Item:
    stored: list[_Item] = []
    failed: list[_Item] = []
    unnamed: list[_Item] = []
    for outcome in outcomes:
        instance: _Item = {"00081150": outcome.sop_class_uid, "00081155": outcome.sop_instance_uid}
        if outcome.refused is None:
            stored.append({**instance, "00081190": ""})
        elif outcome.sop_instance_uid:
            failed.append({**instance, "00081197": outcome.refused.dimse_status})
        else:
            unnamed.append({"00081197": outcome.refused.dimse_status})
    studies = {outcome.study_instance_uid for outcome in outcomes if outcome.refused is None} - {""}
    dataset: _Item = {"00081190": f"{studies_url}/{studies.pop()}" if len(studies) == 1 else ""}
    sequences: list[tuple[str, list[_Item]]] = [("00081198", failed), ("00081199", stored), ("0008119A", unnamed)]
    return {**dataset, **{tag: items for tag, items in sequences if items}}


def _json(dataset: _Item) -> dict[str, object]:
    encoded: dict[str, object] = {}
    for tag, value in dataset.items():
        attribute: dict[str, object] = {"vr": _VR[tag][0]}
        if isinstance(value, list):
            attribute["Value"] = [_json(item) for item in value]
        elif value != "":
            attribute["Value"] = [value]
        encoded[tag] = attribute
    return encoded


def _xml(dataset: _Item) -> str:
    encoded = []
    for tag, value in dataset.items():
        vr, keyword = _VR[tag]
        if isinstance(value, list):
            body = "".join(f'<Item number="{number}">{_xml(item)}</Item>' for number, item in enumerate(value, 1))
        else:
            body = f'<Value number="1">{escape(str(value))}</Value>' if value != "" else ""
        encoded.append(f'<DicomAttribute tag="{tag}" vr="{vr}" keyword={quoteattr(keyword)}>{body}</DicomAttribute>')
    return "".join(encoded)
