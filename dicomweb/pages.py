"""The study list: one page that works without scripts, and a fragment of it that a small script refreshes.

What is searched for travels in the body of a POST, never in an address: addresses end up in histories and logs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from archive.catalog import Found, Query
from dicomweb.forms import form_pairs
from dicomweb.problems import NotFound, answering_problems
from dicomweb.reading import Reading
from dicomweb.viewer import Viewer

ROWS_PER_PAGE: Final = 25
PAGE_MAX: Final = 400
TEXT_MAX_CHARACTERS: Final = 200
COUNTED_MAX: Final = 10_000
_HERE: Final = Path(__file__).parent
_ASSETS: Final[Mapping[str, str]] = {
    "list.css": "text/css",
    "list.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One study as the list shows it."""

    patient_name: str
    patient_id: str
    birth_date: str
    study_date: str
    study_time: str
    modalities: tuple[str, ...]
    description: str
    accession_number: str
    instance_count: int
    series_count: int
    held_count: int
    conflict_count: int
    is_mixed: bool
    #: The viewer's address; empty if the viewer is not installed.
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of the list."""

    rows: Sequence[StudyRow]
    text: str
    #: From 1.
    page: int
    #: Studies that match, counted up to `COUNTED_MAX`.
    count: int
    version: str

    @property
    def first(self) -> int:
        """The number of the first row shown, from 1."""
        return (self.page - 1) * ROWS_PER_PAGE + 1

    @property
    def last(self) -> int:
        """The number of the last row shown."""
        return self.first + len(self.rows) - 1

    @property
    def has_next(self) -> bool:
        """Whether there are rows after these."""
        return self.last < self.count and self.page < PAGE_MAX


def page_routes(reading: Reading, viewer: Viewer) -> list[Route]:
    """The list and what it needs."""
    pages = _Pages(reading, viewer)
    return [
        Route("/", answering_problems(pages.list), methods=["GET", "POST"]),
        Route("/list", answering_problems(pages.fragment), methods=["POST"]),
        Route("/list/version", answering_problems(pages.version), methods=["GET"]),
        Route("/assets/sansfilm/{name}", answering_problems(_asset), methods=["GET"]),
    ]


class _Pages:
    def __init__(self, reading: Reading, viewer: Viewer) -> None:
        self._reading = reading
        self._viewer = viewer
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def list(self, request: Request) -> Response:
        return await self._rendered("list.html", request)

    async def fragment(self, request: Request) -> Response:
        return await self._rendered("studies.html", request)

    async def version(self, request: Request) -> Response:
        """Cheap enough to ask every few seconds: an entity tag that changes with every commit."""
        tag = f'"{await self._version(request)}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(tag, media_type="text/plain", headers=headers)

    async def _rendered(self, template: str, request: Request) -> Response:
        listing = await self._listing(request)
        settings = self._reading.settings
        page = self._templates.get_template(template).render(
            listing=listing,
            ae_title=settings.ae_title,
            dicom_host=_reachable(settings.bind_address, request),
            dicom_port=settings.dicom_port,
            insecure_demo=settings.insecure_demo,
            viewer_installed=self._viewer.installed,
        )
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def _listing(self, request: Request) -> Listing:
        timeout_s = self._reading.settings.http_idle_timeout_s
        asked = dict(await form_pairs(request, timeout_s=timeout_s)) if request.method == "POST" else {}
        text = asked.get("text", "").strip()[:TEXT_MAX_CHARACTERS]
        page = _page(asked.get("page", "1"))
        scope, reader = self._reading.scope(request), self._reading.reader
        query = Query(level="study", matches={}, limit=ROWS_PER_PAGE, offset=(page - 1) * ROWS_PER_PAGE, text=text)
        version = await self._version(request)
        found = await self._reading.call(lambda: reader.search(scope, query))
        count = await self._reading.call(lambda: reader.count(scope, query))
        installed = self._viewer.installed
        rows = [study_row(one, viewer_installed=installed) for one in found]
        return Listing(rows=rows, text=text, page=page, count=count, version=version)

    async def _version(self, request: Request) -> str:
        tenant, reader = self._reading.scope(request).tenant, self._reading.reader
        counters = await self._reading.call(lambda: dict(reader.counters(tenant)))
        state = json.dumps([counters, self._viewer.installed], sort_keys=True)
        return hashlib.sha256(state.encode()).hexdigest()[:16]


def study_row(found: Found, *, viewer_installed: bool) -> StudyRow:
    """A found study in the form a person reads."""
    values = found.values
    uid = values["StudyInstanceUID"]
    return StudyRow(
        patient_name=readable_name(values.get("PatientName", "")),
        patient_id=values.get("PatientID", ""),
        birth_date=readable_date(values.get("PatientBirthDate", "")),
        study_date=readable_date(values.get("StudyDate", "")),
        study_time=readable_time(values.get("StudyTime", "")),
        modalities=tuple(one for one in values.get("ModalitiesInStudy", "").split("\\") if one),
        description=values.get("StudyDescription", ""),
        accession_number=values.get("AccessionNumber", ""),
        instance_count=int(values.get("NumberOfStudyRelatedInstances", "") or 0),
        series_count=int(values.get("NumberOfStudyRelatedSeries", "") or 0),
        held_count=found.held_count,
        conflict_count=found.conflict_count,
        is_mixed=found.is_mixed,
        link=f"/viewer?{urlencode({'StudyInstanceUIDs': uid})}" if viewer_installed else "",
    )


def readable_name(text: str) -> str:
    """A person name (PS3.5 6.2.1) as "Family, Given Middle"; its ideographic form follows if there is one."""
    groups = [_group(group) for group in text.split("=")[:2]]
    return " · ".join(group for group in groups if group)


def readable_date(text: str) -> str:
    """A DA value as yyyy-mm-dd, or as it is."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def readable_time(text: str) -> str:
    """A TM value as hh:mm, or nothing."""
    return f"{text[:2]}:{text[2:4]}" if len(text) >= 4 and text[:4].isdigit() else ""


def _group(group: str) -> str:
    family, _, rest = group.partition("^")
    given = " ".join(one for one in rest.split("^")[:2] if one)
    return ", ".join(one for one in (family.strip(), given.strip()) if one)


def _reachable(bind_address: str, request: Request) -> str:
    """The name a modality reaches us by: of a server on every address, the one the browser used."""
    return request.url.hostname or bind_address if bind_address in ("0.0.0.0", "::") else bind_address


def _page(text: str) -> int:
    return min(int(text), PAGE_MAX) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else 1


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise NotFound("There is no such page or file.")
    return FileResponse(_HERE / "static" / name, media_type=_ASSETS[name], headers={"Cache-Control": "no-cache"})
