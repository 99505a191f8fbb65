"""What a study says of itself, gathered from its instances: the first word stands, what it left empty is filled later.

A study that came under different Patient IDs belongs to no patient: `patient_row` is null although there is an ID. That
is for a person to look at, and stays so; readers are told by a mark. An ID that is missing is no different one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, func, select, update

from archive import schema
from archive.folding import search_text
from archive.wording import ROWS_PER_STATEMENT, one_of

#: A row of `study` as it is inserted.
StudyRow = Mapping[str, Any]

_IDENTITY: Final = ("patient_id", "patient_id_issuer", "patient_row")
_PERSON: Final = ("patient_name", "patient_birth_date", "patient_sex")
_STUDY: Final = (
    "study_date", "study_time", "study_id", "accession_number", "accession_issuer", "study_description",
    "referring_physician_name", "institution_name",
)  # fmt: skip
_FOLDED: Final = {"patient_name": "patient_name_folded", "referring_physician_name": "referring_physician_folded"}
_COLUMNS: Final = (*_IDENTITY, *_PERSON, *_STUDY, *_FOLDED.values(), "search_text")
#: Characters of what a word is looked for in, after which a study of many patients takes no more.
_SEARCH_TEXT_MAX: Final = 8192
#: An ID that an index must cut has at least so many characters; its patient has no row, whoever else came.
_CUT_CHARACTERS: Final = schema.KEY_BYTES_MAX // 4 - 1


def gathered(known: StudyRow, said: StudyRow) -> dict[str, Any]:
    """`known` with what `said`, of further instances, adds to it."""
    row = dict(known)
    differs = _differs(known, said)
    if not known["patient_id"]:
        row.update({name: said[name] for name in _IDENTITY})
    elif differs or _is_mixed(said):
        row["patient_row"] = None
    for name in _STUDY if differs else (*_PERSON, *_STUDY):
        row[name] = known[name] or said[name]
    for name, folded in _FOLDED.items():
        row[folded] = known[folded] if row[name] == known[name] else said[folded]
    row["search_text"] = _search_text(row, known, said)
    return row


def complete(connection: Connection, said: Mapping[int, StudyRow]) -> Iterator[int]:
    """Add what instances of a batch said to their studies, by id; gives the tenants of those that are mixed since.

    One statement reads them whatever was said, a second one writes those that change. Until the transaction ends,
    others wait to do the same.
    """
    study, ids, changed = schema.study, sorted(said), []
    for start in range(0, len(ids), ROWS_PER_STATEMENT):
        rows = select(study.c.id, study.c.tenant_id, *(study.c[name] for name in _COLUMNS))
        here = one_of(connection, study.c.id, ids[start : start + ROWS_PER_STATEMENT])
        locked = rows.where(here).order_by(study.c.id).with_for_update(key_share=True)
        for known in connection.execute(locked).mappings().all():
            row = gathered(_part(known), said[known["id"]])
            if row != _part(known):
                changed.append({"at": known["id"], **row})
            if _is_mixed(row) and not _is_mixed(known):
                yield known["tenant_id"]
    if changed:
        values: dict[str, Any] = {name: bindparam(name) for name in _COLUMNS}
        connection.execute(update(study).where(study.c.id == bindparam("at")).values(values), changed)


def is_mixed() -> ColumnElement[bool]:
    """Whether a row of `study` came under different Patient IDs."""
    study = schema.study
    whole = (func.length(study.c.patient_id) < _CUT_CHARACTERS) & (
        func.length(study.c.patient_id_issuer) < _CUT_CHARACTERS
    )
    return study.c.patient_row.is_(None) & (study.c.patient_id != "") & whole


def _is_mixed(row: StudyRow | RowMapping) -> bool:
    whole = len(row["patient_id"]) < _CUT_CHARACTERS and len(row["patient_id_issuer"]) < _CUT_CHARACTERS
    return row["patient_row"] is None and row["patient_id"] != "" and whole


def _differs(known: StudyRow, said: StudyRow) -> bool:
    """Whether they name two patients. An issuer that is missing makes no difference."""
    if not known["patient_id"] or not said["patient_id"]:
        return False
    issuers = {known["patient_id_issuer"], said["patient_id_issuer"]} - {""}
    return known["patient_id"] != said["patient_id"] or len(issuers) > 1


def _search_text(row: StudyRow, known: StudyRow, said: StudyRow) -> str:
    """Words of every patient that a study came under, so that each of them finds it."""
    before: str = known["search_text"]
    if not _is_mixed(row):
        names = ("patient_name", "patient_id", "accession_number")
        same = all(row[name] == known[name] for name in names)
        return before if same else search_text(*(row[name] for name in names))
    if said["search_text"] in before or len(before) > _SEARCH_TEXT_MAX:
        return before
    return f"{before}\x1f{said['search_text']}"


def _part(row: StudyRow | RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in _COLUMNS}
