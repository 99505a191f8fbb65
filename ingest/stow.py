"""STOW-RS: Store Instances over HTTP, with the guarantee of C-STORE (PS3.18 10.5).

The body is parsed as it comes. A part collects its first kilobytes until its file meta information can be read, then
its data set goes the way of every other arrival. The answer is given when everything it calls stored is durable.
Memory per request: `stow_parts.BUFFERS_PER_REQUEST` x ``inline_max_bytes`` and a megabyte; at most
``associations_max`` requests are served at one time, ``associations_per_caller_max`` of one address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
from anyio import to_thread
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ingest.intake import Intake, count_rejection
from ingest.multipart import BadRequest, MultipartBody, media_type
from ingest.stow_answer import AnswerType, StowOutcome, encode_answer, status_of
from ingest.stow_parts import StowParts
from runtime.clock import Clock, SystemClock
from runtime.errors import Rejected
from runtime.faults import reach
from runtime.logs import get_logger
from runtime.settings import EdgeSettings
from schemas.identifiers import is_safe_uid
from schemas.reasons import RejectReason

#: Bytes parsed at a time, on a thread: fewer hops than chunks.
_PIECE_BYTES: Final = 256 * 1024
_RETRY_AFTER_S: Final = "10"


def stow_routes(intake: Intake, settings: EdgeSettings, clock: Clock | None = None) -> list[Route]:
    """The two resources that instances are posted to, relative to the DICOMweb root."""
    stow = Stow(intake, settings, clock or SystemClock())
    return [
        Route("/studies", stow.post, methods=["POST"]),
        Route("/studies/{study}", stow.post, methods=["POST"]),
    ]


class Stow:
    """Answers POST requests; bounds how many at one time and on how many threads."""

    def __init__(self, intake: Intake, settings: EdgeSettings, clock: Clock) -> None:
        self._intake = intake
        self._settings = settings
        self._clock = clock
        #: Requests under way by caller's address.
        self._open: Counter[str] = Counter()
        self._threads = anyio.CapacityLimiter(min(settings.associations_max, 16))

    async def post(self, request: Request) -> Response:
        """Store Instances."""
        caller = request.client.host if request.client else ""
        limits = self._settings
        if self._open.total() >= limits.associations_max or self._open[caller] >= limits.associations_per_caller_max:
            count_rejection(Rejected(RejectReason.ASSOCIATION_LIMIT))
            return _sentence(503, "too many requests at one time: try again later")
        self._open[caller] += 1
        try:
            return await self._post(request)
        except BadRequest as bad:
            return _sentence(bad.status, str(bad))
        except ClientDisconnect:
            return _sentence(400, "the body ended before it was complete")
        except TimeoutError:
            return _sentence(408, "the body came too slowly")
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    async def _post(self, request: Request) -> Response:
        answer_type = _answer_type(request)
        study_uid = str(request.path_params.get("study", ""))
        if study_uid and not is_safe_uid(study_uid):
            raise BadRequest(400, "the study's UID in the URL is none")
        declared_bytes = _declared_bytes(request)
        parts = StowParts(self._intake, self._clock.new_id(), study_uid)
        body = MultipartBody(_boundary(request), parts)
        try:
            taken_bytes = 0
            async for piece in self._pieces(request):
                taken_bytes += len(piece)
                await to_thread.run_sync(body.feed, piece, limiter=self._threads)
            if declared_bytes is not None and taken_bytes != declared_bytes:
                raise BadRequest(400, "the body is not as long as Content-Length says")
            body.finish()
            outcomes = await to_thread.run_sync(parts.settled, limiter=self._threads)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(parts.abandon, limiter=self._threads)
        return self._answer(request, outcomes, answer_type)

    def _answer(self, request: Request, outcomes: Sequence[StowOutcome], answer_type: AnswerType) -> Response:
        if not outcomes:
            raise BadRequest(400, "the body has no part")
        status = status_of(outcomes)
        refused = sum(outcome.refused is not None for outcome in outcomes)
        get_logger().info("stow_answered", status=status, stored=len(outcomes) - refused, refused=refused)
        return Response(
            encode_answer(outcomes, _studies_url(request), answer_type),
            status_code=status,
            media_type=answer_type,
            headers={"retry-after": _RETRY_AFTER_S} if status == 503 else None,
            background=BackgroundTask(reach, "edge.acknowledged"),
        )

    async def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        """The body in pieces of useful size; each piece must come within the idle timeout, however it trickles."""
        gathered = bytearray()
        chunks = request.stream()
        is_open = True
        while is_open:
            with anyio.fail_after(self._settings.idle_timeout_s):
                while is_open and len(gathered) < _PIECE_BYTES:
                    chunk = await anext(chunks, None)
                    is_open = chunk is not None
                    gathered += chunk or b""
            while len(gathered) >= _PIECE_BYTES:
                yield bytes(gathered[:_PIECE_BYTES])
                del gathered[:_PIECE_BYTES]
        if gathered:
            yield bytes(gathered)


def _answer_type(request: Request) -> AnswerType:
    """The first answer type we have that the client accepts (PS3.18 8.7.5)."""
    accepted = [media_type(entry)[0] for entry in request.headers.get("accept", "*/*").split(",")]
    for entry in accepted:
        if entry in ("application/dicom+json", "application/json", "application/*", "*/*"):
            return "application/dicom+json"
        if entry in ("application/dicom+xml", "application/xml"):
            return "application/dicom+xml"
    raise BadRequest(406, "answers are application/dicom+json or application/dicom+xml")


def _boundary(request: Request) -> bytes:
    kind, parameters = media_type(request.headers.get("content-type", ""))
    if kind != "multipart/related":
        raise BadRequest(415, "instances are stored as multipart/related")
    # RFC 2387 wants the type; senders that leave it out mean the only one there is.
    if parameters.get("type", "application/dicom").lower() != "application/dicom":
        raise BadRequest(415, 'only type="application/dicom" is stored')
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise BadRequest(400, "the Content-Type names no boundary")
    return boundary.encode("latin-1", "replace")


def _declared_bytes(request: Request) -> int | None:
    """Content-Length; None if the body is chunked."""
    declared = request.headers.get("content-length")
    if declared is None:
        if "transfer-encoding" not in request.headers and request.scope.get("http_version", "1.1").startswith("1"):
            raise BadRequest(411, "a Content-Length or a chunked body is needed")
        return None
    if not (declared.isascii() and declared.isdigit() and len(declared) <= 18):
        raise BadRequest(400, "the Content-Length is no number")
    return int(declared)


def _studies_url(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}/studies"


def _sentence(status: int, sentence: str) -> Response:
    headers = {"retry-after": _RETRY_AFTER_S} if status == 503 else None
    return PlainTextResponse(f"{sentence[:1].upper()}{sentence[1:]}.\n", status_code=status, headers=headers)
