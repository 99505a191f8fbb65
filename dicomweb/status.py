"""Health and metrics, as orchestrators and Prometheus ask for them. No patient, no UID, no tenant."""

from __future__ import annotations

from collections.abc import Callable

from anyio.to_thread import run_sync
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runtime.metrics import REGISTRY


def own_metrics() -> bytes:
    """The metrics of this process alone."""
    return generate_latest(REGISTRY)


def status_routes(*, ready: Callable[[], bool], collect_metrics: Callable[[], bytes]) -> list[Route]:
    """``/health/live``, ``/health/ready`` and ``/metrics``."""

    async def live(request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def readiness(request: Request) -> Response:
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", 503)

    async def metrics(request: Request) -> Response:
        return Response(await run_sync(collect_metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        Route("/health/live", live, methods=["GET"]),
        Route("/health/ready", readiness, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
