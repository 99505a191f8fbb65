"""The web application: every address it answers, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from archive.catalog import CatalogReader
from archive.segment_store import SegmentStore
from dicomweb.access import AccessMiddleware, loopback_hosts
from dicomweb.frames import frame_routes
from dicomweb.pages import page_routes
from dicomweb.problems import NotFound, Problem, answer
from dicomweb.qido import qido_routes
from dicomweb.reading import Decoder, Reading
from dicomweb.status import own_metrics, status_routes
from dicomweb.viewer import Viewer
from dicomweb.wado import wado_routes
from runtime.settings import WebSettings


def create_app(
    settings: WebSettings,
    reader: CatalogReader,
    store: SegmentStore,
    decoder: Decoder,
    *,
    extra_routes: Sequence[BaseRoute] = (),
    ready: Callable[[], bool] = lambda: True,
    collect_metrics: Callable[[], bytes] = own_metrics,
) -> Starlette:
    """The application over an open catalog and store, which stay the caller's to close.

    `extra_routes` join the DICOMweb root of the default tenant: STOW-RS, which belongs to the edge.
    """
    reading = Reading(settings, reader, store, decoder)
    viewer = Viewer(settings.viewer_dir)
    resources = [*qido_routes(reading), *wado_routes(reading), *frame_routes(reading)]
    routes: list[BaseRoute] = [
        *status_routes(ready=ready, collect_metrics=collect_metrics),
        Mount("/dicom-web", routes=[*resources, *extra_routes]),
        Mount("/t/{tenant}/dicom-web", routes=resources),
        *page_routes(reading, viewer),
        *viewer.routes(),
    ]
    hosts = None if settings.insecure_demo else loopback_hosts(settings.bind_address)
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(
                AccessMiddleware,
                hosts=hosts,
                tenant=settings.tenant,
                send_timeout_s=settings.http_send_timeout_s,
            )
        ],
        exception_handlers={404: _unknown, 405: _not_allowed},
    )


async def _unknown(request: Request, error: Exception) -> Response:
    return answer(NotFound("There is no such resource."))


async def _not_allowed(request: Request, error: Exception) -> Response:
    headers = getattr(error, "headers", None)
    return answer(Problem(405, "This resource does not answer that method.", headers))
