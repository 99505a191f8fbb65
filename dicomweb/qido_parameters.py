"""The query of a search (PS3.18 8.3.4 and 10.6.1.2), parsed by hand into a `Query` of the catalog.

Which matching a value means is decided by the attribute's VR alone: ranges for dates and times, lists for UIDs and
modalities, wild cards for the other text. A parameter we do not know is refused rather than ignored: a search that
silently matched less than it was asked to would show the wrong patients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from archive.catalog import Between, Level, Match, OneOf, Query, Wildcard
from dicomweb.attributes import ATTRIBUTES, Attribute, at_or_above, find
from dicomweb.problems import BadRequest
from schemas.identifiers import is_safe_uid

PARAMETERS_MAX: Final = 64
VALUE_MAX_CHARACTERS: Final = 16_384
#: Of what is not a list of UIDs; folding makes up to eighteen characters of one.
TEXT_MAX_CHARACTERS: Final = 1_024
_LISTED: Final = frozenset({"ModalitiesInStudy", "Modality"})
_FORMS: Final = {
    "DA": re.compile(r"[0-9]{8}"),
    "TM": re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?"),
}
_TAG_PATH: Final = re.compile(r"[0-9A-Fa-f]{8}(\.[0-9A-Fa-f]{8})*")
_KEYWORD_PATH: Final = re.compile(r"[A-Z][A-Za-z0-9]*(\.[A-Z][A-Za-z0-9]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search as asked."""

    query: Query
    #: Attributes the answer holds beside the required ones; all that the catalog knows if `include_all`.
    included: frozenset[str]
    include_all: bool
    #: The client asked for fuzzy matching, which PS3.18 lets us decline with a warning.
    fuzzy: bool


def parse_search(pairs: Iterable[tuple[str, str]], *, level: Level, path: Mapping[str, str], limit_max: int) -> Search:
    """A search below the resource that `path` names (keyword to UID).

    Raises:
        BadRequest: a parameter is unknown at this level, occurs twice, or its value has not the form its VR demands.
    """
    given = _grouped(pairs)
    included, include_all = _included(given.pop("includefield", ()))
    fuzzy = _single(given.pop("fuzzymatching", ("false",)), "fuzzymatching") == "true"
    limit = min(_count(given.pop("limit", (str(limit_max),)), "limit"), limit_max)
    offset = _count(given.pop("offset", ("0",)), "offset")
    given.pop("accept", None)
    matches = dict(_matches(given, level))
    for keyword, uid in path.items():
        matches[keyword] = _below(uid, matches.get(keyword))
    query = Query(level=level, matches=matches, limit=limit, offset=offset)
    return Search(query=query, included=included | frozenset(matches), include_all=include_all, fuzzy=fuzzy)


def parse_match(attribute: Attribute, value: str) -> Match:
    """What `value` means for `attribute` (PS3.4 C.2.2.2).

    Raises:
        BadRequest: the value has not the form the VR demands.
    """
    if attribute.vr == "UI":
        return _uid_list(attribute, re.split(r"[,\\]", value))
    if len(value) > TEXT_MAX_CHARACTERS or any(character < " " for character in value):
        raise BadRequest(f"The value of {attribute.keyword} is too long or holds control characters.")
    if attribute.vr in _FORMS:
        return _moment(attribute, value)
    if attribute.keyword in _LISTED and re.search(r"[,\\]", value):
        return OneOf(values=tuple(one.strip() for one in re.split(r"[,\\]", value) if one.strip()))
    if ("*" in value or "?" in value) and attribute.vr not in ("IS", "US"):
        return Wildcard(pattern=value)
    if attribute.vr in ("IS", "US") and not re.fullmatch(r"[+-]?[0-9]{1,12}", value.strip()):
        raise BadRequest(f"The value of {attribute.keyword} is not a whole number.")
    return OneOf(values=(value,))


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    given: dict[str, tuple[str, ...]] = {}
    for number, (name, value) in enumerate(pairs):
        if number >= PARAMETERS_MAX or len(value) > VALUE_MAX_CHARACTERS:
            raise BadRequest("The query has too many parameters or one that is too long.")
        given[name] = (*given.get(name, ()), value)
    return given


def _matches(given: Mapping[str, Sequence[str]], level: Level) -> Iterable[tuple[str, Match]]:
    for name, values in given.items():
        attribute = find(name)
        if attribute is None or not attribute.matchable or attribute.level not in at_or_above(level):
            raise BadRequest(_unknown(name, attribute, level))
        filled = [value for value in values if value]
        if attribute.vr == "UI" and filled:
            yield attribute.keyword, _uid_list(attribute, [uid for one in filled for uid in re.split(r"[,\\]", one)])
        elif len(filled) > 1:
            raise BadRequest(f"{attribute.keyword} is given more than once.")
        elif filled and filled[0] != "*":
            yield attribute.keyword, parse_match(attribute, filled[0])


def _unknown(name: str, attribute: Attribute | None, level: Level) -> str:
    if attribute is not None:
        return f"{attribute.keyword} cannot be matched when searching for {_PLURALS[level]}."
    if _TAG_PATH.fullmatch(name) or _KEYWORD_PATH.fullmatch(name):
        allowed = ", ".join(a.keyword for a in ATTRIBUTES.values() if a.matchable and a.level in at_or_above(level))
        return f"One parameter names an attribute that cannot be matched here; these can: {allowed}."
    return "One parameter is neither an attribute nor limit, offset, includefield, fuzzymatching or accept."


_PLURALS: Final[Mapping[Level, str]] = {"study": "studies", "series": "series", "instance": "instances"}


def _uid_list(attribute: Attribute, uids: Sequence[str]) -> OneOf:
    values = tuple(dict.fromkeys(uid.strip() for uid in uids if uid.strip()))
    if not all(is_safe_uid(uid) for uid in values):
        raise BadRequest(f"The value of {attribute.keyword} is not a UID or a list of UIDs.")
    return OneOf(values=values)


def _below(uid: str, asked: Match | None) -> OneOf:
    if isinstance(asked, OneOf) and uid not in asked.values:
        return OneOf(values=())
    return OneOf(values=(uid,))


def _moment(attribute: Attribute, value: str) -> Match:
    form = _FORMS[attribute.vr]
    ends = [end.strip() for end in value.split("-")]
    if not any(ends) or len(ends) > 2 or not all(form.fullmatch(end) for end in ends if end):
        raise BadRequest(f"The value of {attribute.keyword} is not a {attribute.vr} value or a range of two.")
    if len(ends) == 2:
        return Between(low=ends[0], high=ends[1])
    if attribute.vr == "TM":
        # A time to the minute means all of that minute: the catalog reads both ends so (PS3.4 C.2.2.2.5.2).
        return Between(low=ends[0], high=ends[0])
    return OneOf(values=(ends[0],))


def _included(values: Sequence[str]) -> tuple[frozenset[str], bool]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    for name in names:
        if name != "all" and not (_TAG_PATH.fullmatch(name) or _KEYWORD_PATH.fullmatch(name)):
            raise BadRequest("One includefield is neither a keyword nor a tag of eight hexadecimal digits.")
    found = (find(name) for name in names)
    return frozenset(attribute.keyword for attribute in found if attribute), "all" in names


def _count(values: Sequence[str], name: str) -> int:
    value = _single(values, name)
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise BadRequest(f"{name} is not a whole number from 0.")
    return int(value)


def _single(values: Sequence[str], name: str) -> str:
    if len(values) != 1:
        raise BadRequest(f"{name} is given more than once.")
    return values[0]
