"""QIDO-RS matching as SQL: which keys may be matched, what each matching means, and the order of answers.

Matching is PS3.4 C.2.2.2. Person names match without regard to case and accents (PS3.4 C.2.2.2.1 leaves that to the
implementation); everything else matches exactly, wild cards included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, FromClause, Select, and_, exists, false, literal, or_, select

from archive import schema
from archive.catalog import Between, Level, Match, OneOf, Query, Wildcard
from archive.folding import folded_name, search_words
from archive.studies import is_mixed

COUNT_MAX: Final = 10_000

_study, _series, _instance = schema.study, schema.series, schema.instance

_STUDY_COLUMNS: Final[dict[str, Column[Any]]] = {
    "StudyInstanceUID": _study.c.study_instance_uid,
    "StudyDate": _study.c.study_date,
    "StudyTime": _study.c.study_time,
    "AccessionNumber": _study.c.accession_number,
    "ModalitiesInStudy": _study.c.modalities,
    "ReferringPhysicianName": _study.c.referring_physician_name,
    "PatientName": _study.c.patient_name,
    "PatientID": _study.c.patient_id,
    "IssuerOfPatientID": _study.c.patient_id_issuer,
    "PatientBirthDate": _study.c.patient_birth_date,
    "PatientSex": _study.c.patient_sex,
    "StudyID": _study.c.study_id,
    "StudyDescription": _study.c.study_description,
    "InstitutionName": _study.c.institution_name,
}
_SERIES_COLUMNS: Final[dict[str, Column[Any]]] = {
    "Modality": _series.c.modality,
    "SeriesInstanceUID": _series.c.series_instance_uid,
    "SeriesNumber": _series.c.series_number,
    "SeriesDescription": _series.c.series_description,
    "SeriesDate": _series.c.series_date,
    "SeriesTime": _series.c.series_time,
    "PerformedProcedureStepStartDate": _series.c.pps_start_date,
    "PerformedProcedureStepStartTime": _series.c.pps_start_time,
    "ScheduledProcedureStepID": _series.c.scheduled_procedure_step_id,
    "RequestedProcedureID": _series.c.requested_procedure_id,
    "BodyPartExamined": _series.c.body_part_examined,
    "ProtocolName": _series.c.protocol_name,
    "StationName": _series.c.station_name,
}
_INSTANCE_COLUMNS: Final[dict[str, Column[Any]]] = {
    "SOPClassUID": _instance.c.sop_class_uid,
    "SOPInstanceUID": _instance.c.sop_instance_uid,
    "InstanceNumber": _instance.c.instance_number,
    "Rows": _instance.c.rows,
    "Columns": _instance.c.columns,
    "BitsAllocated": _instance.c.bits_allocated,
    "NumberOfFrames": _instance.c.number_of_frames,
}
_COLUMNS: Final[dict[Level, dict[str, Column[Any]]]] = {
    "study": _STUDY_COLUMNS,
    "series": {**_STUDY_COLUMNS, **_SERIES_COLUMNS},
    "instance": {**_STUDY_COLUMNS, **_SERIES_COLUMNS, **_INSTANCE_COLUMNS},
}
#: The keywords that may be matched at each level, the parents' included.
KEYS: Final[dict[Level, tuple[str, ...]]] = {level: tuple(columns) for level, columns in _COLUMNS.items()}

_FOLDED: Final = {
    "PatientName": _study.c.patient_name_folded,
    "ReferringPhysicianName": _study.c.referring_physician_folded,
}
_TIMES: Final = frozenset({"StudyTime", "SeriesTime", "PerformedProcedureStepStartTime"})
#: Sorts after every digit: makes the end of a range include what is more precise than it.
_AFTER: Final = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The statement of a search, and which of its columns is which attribute."""

    rows: Select[Any]
    keywords: Mapping[str, str]


def answer_to(tenant: str, query: Query) -> Answer:
    """The rows that match, in the order of answers, without limit and offset.

    Raises:
        KeyError: a keyword that is none of `KEYS` at this level.
    """
    columns = dict(_COLUMNS[query.level])
    marks = _series if query.level == "series" else _study
    labels = {keyword: f"k_{keyword}" for keyword in columns}
    shown: list[ColumnElement[Any]] = [column.label(labels[keyword]) for keyword, column in columns.items()]
    shown += [
        _study.c.series_count.label("study_series"),
        _study.c.instance_count.label("study_instances"),
        marks.c.held_count.label("held"),
        marks.c.conflict_count.label("conflicts"),
        _study.c.received_at.label("received_at"),
        is_mixed().label("mixed"),
    ]
    if query.level != "study":
        shown.append(_series.c.instance_count.label("series_instances"))
    if query.level == "instance":
        shown += [_instance.c.version_count.label("versions")]
    rows = select(*shown).select_from(_source(query.level)).where(*_conditions(tenant, query))
    return Answer(rows=rows.order_by(*_order(query.level)), keywords=labels)


def count_of(tenant: str, query: Query) -> Select[Any]:
    """A row for each match, up to `COUNT_MAX`."""
    return select(literal(1)).select_from(_source(query.level)).where(*_conditions(tenant, query)).limit(COUNT_MAX)


def _source(level: Level) -> FromClause:
    source: FromClause = _study
    if level != "study":
        source = source.join(_series, _series.c.study_id == _study.c.id)
    if level == "instance":
        source = source.join(_instance, _instance.c.series_id == _series.c.id)
    return source


def _conditions(tenant: str, query: Query) -> list[ColumnElement[bool]]:
    columns = _COLUMNS[query.level]
    # The tenant's id is asked for apart, and not joined: it is then one value, and an index that begins with it gives
    # the order of answers; PostgreSQL would sort every study of the tenant otherwise.
    owner = select(schema.tenant.c.id).where(schema.tenant.c.name == tenant).scalar_subquery()
    conditions = [_study.c.tenant_id == owner, _study.c.instance_count > 0]
    if query.level != "study":
        conditions.append(_series.c.instance_count > 0)
    if query.level == "instance":
        conditions.append(_instance.c.state == "visible")
    for keyword, match in query.matches.items():
        conditions.append(_condition(keyword, columns[keyword], match))
        if keyword == "SOPInstanceUID" and isinstance(match, OneOf):
            conditions.append(_study.c.id.in_(_studies_of(tenant, match)))
    for word in search_words(query.text):
        conditions.append(_study.c.search_text.like(f"%{_escaped(word)}%", escape="\\"))
    return conditions


def _studies_of(tenant: str, match: OneOf) -> Select[Any]:
    """The studies that SOP Instance UIDs belong to: found without looking through all of them."""
    sop, owner = schema.sop, schema.tenant.alias("owner")
    here = (owner.c.name == tenant) & _one_of(sop.c.sop_instance_uid, match)
    return select(sop.c.study_id).select_from(sop.join(owner, owner.c.id == sop.c.tenant_id)).where(here)


def _condition(keyword: str, column: Column[Any], match: Match) -> ColumnElement[bool]:
    if keyword == "ModalitiesInStudy":
        modality = _modality.c.modality
        inside = _matched("Modality", modality, match)
        return exists().where(and_(_modality.c.study_id == _study.c.id, _modality.c.instance_count > 0, inside))
    if keyword in _FOLDED:
        return _name_matched(keyword, _FOLDED[keyword], _folded(match))
    return _matched(keyword, column, match)


_modality = _series.alias("series_of_study")


def _folded(match: Match) -> Match:
    if isinstance(match, OneOf):
        return OneOf(values=tuple(folded_name(value) for value in match.values))
    return Wildcard(pattern=folded_name(match.pattern)) if isinstance(match, Wildcard) else match


def _name_matched(keyword: str, column: Column[Any], match: Match) -> ColumnElement[bool]:
    """A name matches as a whole, or in one of its component groups (PS3.5 6.2.1.1: alphabetic, ideographic, phonetic).

    A search in plain letters looks into the first group only, which the index orders by; the other groups are looked
    into where a search has letters that belong there.
    """
    ways = [_matched(keyword, column, match)]
    if isinstance(match, OneOf):
        for value in match.values:
            if value and "=" not in value:
                ways.append((column >= f"{value}=") & (column < f"{value}>"))  # ">" follows "="
                ways += _in_later_groups(column, _escaped(value))
    elif isinstance(match, Wildcard) and "=" not in match.pattern:
        pattern = _pattern(match.pattern)
        ways.append(column.like(f"{pattern}=%", escape="\\"))
        ways += _in_later_groups(column, pattern)
    return or_(*ways)


def _in_later_groups(column: Column[Any], pattern: str) -> list[ColumnElement[bool]]:
    if pattern.isascii():
        return []
    return [column.like(f"%={pattern}", escape="\\"), column.like(f"%={pattern}=%", escape="\\")]


def _matched(keyword: str, column: Column[Any], match: Match) -> ColumnElement[bool]:
    is_number = isinstance(column.type, type(_instance.c.rows.type))
    if isinstance(match, OneOf):
        return _one_of_numbers(column, match) if is_number else _one_of(column, match)
    if isinstance(match, Wildcard):
        return false() if is_number else column.like(_pattern(match.pattern), escape="\\")
    return _between(keyword, column, match)


def _one_of(column: Column[Any], match: OneOf) -> ColumnElement[bool]:
    """A single value is written as an equation: only then is its index preferred to the one that gives the order."""
    return column == match.values[0] if len(match.values) == 1 else column.in_(match.values)


def _one_of_numbers(column: Column[Any], match: OneOf) -> ColumnElement[bool]:
    return column.in_([int(value) for value in match.values if re.fullmatch(r"\s*\d{1,9}\s*", value)])


def _between(keyword: str, column: Column[Any], match: Between) -> ColumnElement[bool]:
    low = _least_precise(match.low) if keyword in _TIMES else match.low
    ends: list[ColumnElement[bool]] = [column != ""]
    if low:
        ends.append(column >= low)
    if match.high:
        ends.append(column <= match.high + _AFTER)
    return and_(*ends)


def _least_precise(time: str) -> str:
    """The shortest way to write a time: ``081500.000`` is ``0815``, which a value of ``0815`` reaches."""
    whole, _, fraction = time.partition(".")
    if fraction.strip("0"):
        return time
    while len(whole) > 2 and whole.endswith("00"):
        whole = whole[:-2]
    return whole


def _pattern(wildcard: str) -> str:
    return _escaped(wildcard).replace("*", "%").replace("?", "_")


def _escaped(text: str) -> str:
    # A pattern ends for SQLite at a null, and would match more than was asked for.
    return re.sub(r"([\\%_])", r"\\\1", text.replace("\0", "\ufffd"))


def _order(level: Level) -> list[ColumnElement[Any]]:
    order: list[ColumnElement[Any]] = [
        _study.c.study_date.desc(),
        _study.c.study_time.desc(),
        _study.c.study_instance_uid.desc(),
    ]
    if level != "study":
        order += [_series.c.series_order, _series.c.series_instance_uid]
    if level == "instance":
        order += [_instance.c.instance_order, _instance.c.sop_instance_uid]
    return order
