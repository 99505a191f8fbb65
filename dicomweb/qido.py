"""QIDO-RS (PS3.18 10.6): searching for studies, series and instances.

Below ``/search`` the same resources take the same query as the body of a POST: our own pages and the viewer ask so,
because a query names patients and an address is kept in histories and logs. Other clients use the standard's GET.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from archive.catalog import Found, Level, OneOf
from dicomweb.accept import accepted
from dicomweb.attributes import ATTRIBUTES, LEVELS, at_or_above, to_json
from dicomweb.forms import form_pairs
from dicomweb.problems import Endpoint, NotAcceptable, answering_problems
from dicomweb.qido_parameters import Search, parse_search
from dicomweb.reading import Reading, uids_of

DICOM_JSON: Final = "application/dicom+json"
_UID_KEYWORDS: Final[Mapping[str, str]] = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_PATHS: Final[tuple[tuple[str, Level], ...]] = (
    ("/studies", "study"),
    ("/studies/{study}/series", "series"),
    ("/series", "series"),
    ("/studies/{study}/series/{series}/instances", "instance"),
    ("/studies/{study}/instances", "instance"),
    ("/instances", "instance"),
)
_NO_FUZZY: Final = (
    '299 sansfilm "The fuzzymatching parameter is not supported. Only literal matching has been performed."'
)
_LIMITED: Final = (
    '299 sansfilm "The number of results exceeded the maximum supported by the server. '
    'Additional results can be requested."'
)


def qido_routes(reading: Reading) -> list[Route]:
    """The search resources, relative to the DICOMweb root."""
    searches = [Route(path, _endpoint(reading, level), methods=["GET"]) for path, level in _PATHS]
    return searches + [Route(f"/search{path}", _endpoint(reading, level), methods=["POST"]) for path, level in _PATHS]


def acceptable_json(request: Request) -> str:
    """The media type to answer JSON with.

    Raises:
        NotAcceptable: the client takes no JSON.
    """
    for media_range in accepted(request):
        for media_type in (DICOM_JSON, "application/json"):
            if not media_range.multipart and media_range.covers(media_type):
                return media_type
    raise NotAcceptable("This resource is given as application/dicom+json only.")


def service_root(request: Request) -> str:
    """The address of the DICOMweb root that `request` came in by, for URLs in answers."""
    return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"


def _endpoint(reading: Reading, level: Level) -> Endpoint:
    async def search(request: Request) -> Response:
        media_type = acceptable_json(request)
        path = {_UID_KEYWORDS[at]: uid for at, uid in uids_of(request).items()}
        pairs = await _pairs(request, reading)
        asked = parse_search(pairs, level=level, path=path, limit_max=reading.settings.query_limit_max)
        scope, query = reading.scope(request), asked.query
        wider = replace(query, limit=query.limit + 1)
        rows = [] if _matches_nothing(asked) else await reading.call(lambda: reading.reader.search(scope, wider))
        root = service_root(request)
        body = [_row(found, asked, root) for found in rows[: query.limit]]
        limited = len(rows) > query.limit and query.limit == reading.settings.query_limit_max
        return _answer(body, media_type, _warnings(asked, limited=limited))

    return answering_problems(search)


async def _pairs(request: Request, reading: Reading) -> list[tuple[str, str]]:
    if request.method == "POST":
        return await form_pairs(request, timeout_s=reading.settings.http_idle_timeout_s)
    return request.query_params.multi_items()


def _matches_nothing(asked: Search) -> bool:
    return any(isinstance(match, OneOf) and not match.values for match in asked.query.matches.values())


def _answer(body: list[dict[str, object]], media_type: str, warnings: list[str]) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    response = Response(text, media_type=media_type)
    for warning in warnings:
        response.headers.append("Warning", warning)
    return response


def _warnings(asked: Search, *, limited: bool) -> list[str]:
    return [_NO_FUZZY] * asked.fuzzy + [_LIMITED] * limited


def _row(found: Found, asked: Search, root: str) -> dict[str, object]:
    level, values = asked.query.level, found.values
    row: dict[str, object] = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00081190": {"vr": "UR", "Value": [root + _resource(level, values)]},
    }
    for attribute in ATTRIBUTES.values():
        wanted = asked.include_all or attribute.keyword in asked.included or not attribute.on_request
        if wanted and attribute.level in at_or_above(level) and attribute.keyword in values:
            row[attribute.tag] = to_json(attribute, values[attribute.keyword])
    return dict(sorted(row.items()))


def _resource(level: Level, values: Mapping[str, str]) -> str:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")[: LEVELS.index(level) + 1]
    named = zip(("studies", "series", "instances"), keywords, strict=False)
    return "".join(f"/{name}/{values.get(keyword, '')}" for name, keyword in named)
