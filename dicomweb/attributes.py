"""The attributes a search can match and give, by level, and their form in the DICOM JSON Model (PS3.18 F.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from archive.catalog import Level

LEVELS: Final[tuple[Level, ...]] = ("study", "series", "instance")
_PERSON_COMPONENTS: Final = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of a search answer."""

    keyword: str
    #: Eight hexadecimal digits, upper case.
    tag: str
    vr: str
    level: Level
    #: Whether it may be matched; the others are only returned.
    matchable: bool = True
    #: Whether it is returned only when asked for (PS3.18 Tables 10.6.3-3 to -5 do not require it).
    on_request: bool = False


def _table() -> Mapping[str, Attribute]:
    rows: list[tuple[Level, str]] = [
        ("study", "00080020 DA StudyDate; 00080030 TM StudyTime; 00080050 SH AccessionNumber"),
        ("study", "00080061 CS ModalitiesInStudy; 00080090 PN ReferringPhysicianName; 00100010 PN PatientName"),
        ("study", "00100020 LO PatientID; 00100021 LO IssuerOfPatientID +; 00100030 DA PatientBirthDate"),
        ("study", "00100040 CS PatientSex; 0020000D UI StudyInstanceUID; 00200010 SH StudyID"),
        ("study", "00081030 LO StudyDescription +; 00080080 LO InstitutionName +"),
        ("study", "00201206 IS NumberOfStudyRelatedSeries -; 00201208 IS NumberOfStudyRelatedInstances -"),
        ("series", "00080060 CS Modality; 0020000E UI SeriesInstanceUID; 00200011 IS SeriesNumber"),
        ("series", "0008103E LO SeriesDescription; 00400244 DA PerformedProcedureStepStartDate"),
        ("series", "00400245 TM PerformedProcedureStepStartTime; 00400009 SH ScheduledProcedureStepID"),
        ("series", "00401001 SH RequestedProcedureID; 00180015 CS BodyPartExamined +; 00181030 LO ProtocolName +"),
        ("series", "00080021 DA SeriesDate +; 00080031 TM SeriesTime +; 00081010 SH StationName +"),
        ("series", "00201209 IS NumberOfSeriesRelatedInstances -"),
        ("instance", "00080016 UI SOPClassUID; 00080018 UI SOPInstanceUID; 00200013 IS InstanceNumber"),
        ("instance", "00280010 US Rows; 00280011 US Columns; 00280100 US BitsAllocated; 00280008 IS NumberOfFrames"),
    ]
    return {row.keyword: row for level, text in rows for row in (_attribute(level, one) for one in text.split("; "))}


def _attribute(level: Level, text: str) -> Attribute:
    tag, vr, keyword, *marks = text.split()
    mark = "".join(marks)
    return Attribute(keyword=keyword, tag=tag, vr=vr, level=level, matchable="-" not in mark, on_request="+" in mark)


ATTRIBUTES: Final = _table()
"""By keyword. In the table ``-`` marks what cannot be matched and ``+`` what is returned on request only."""
BY_TAG: Final = {attribute.tag: attribute for attribute in ATTRIBUTES.values()}


def find(name: str) -> Attribute | None:
    """The attribute named by keyword or by tag (PS3.18 8.3.4.1), if it is one of ours."""
    return ATTRIBUTES.get(name) or BY_TAG.get(name.upper())


def at_or_above(level: Level) -> frozenset[Level]:
    """`level` and its parents."""
    return frozenset(LEVELS[: LEVELS.index(level) + 1])


def to_json(attribute: Attribute, text: str) -> dict[str, object]:
    """The attribute with the value `text` (backslash between values) in the DICOM JSON Model."""
    values = [_value(attribute.vr, one.strip()) for one in text.split("\\")] if text else []
    if not any(value is not None for value in values):
        return {"vr": attribute.vr}
    return {"vr": attribute.vr, "Value": values}


def person_name(text: str) -> dict[str, str] | None:
    """A person name by component groups (PS3.18 F.2.2, PS3.5 6.2.1.2); empty groups are left out."""
    groups = zip(_PERSON_COMPONENTS, text.split("="), strict=False)
    return {component: group for component, group in groups if group} or None


def number(text: str) -> int | float | str:
    """An IS or DS value as a number, or as the text it is where it is none (PS3.18 F.2.3.1)."""
    try:
        value = float(text)
        whole = int(value)
    except (ValueError, OverflowError):
        return text
    if value == whole and "." not in text and "e" not in text.lower():
        return whole
    return value


def _value(vr: str, text: str) -> object:
    if text == "":
        return None
    if vr == "PN":
        return person_name(text)
    return number(text) if vr in ("IS", "DS", "US") else text
