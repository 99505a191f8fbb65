"""What a reader is told when something cannot be answered: a status and one sentence, never a value of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps

import structlog
from starlette.requests import Request
from starlette.responses import Response

from runtime.errors import Retryable, SansfilmError

_log = structlog.get_logger()


class Problem(Exception):
    """An answer other than success. `sentence` is written by us; it never quotes what was asked or stored."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})


class BadRequest(Problem):
    """400: the request does not follow PS3.18; the client must change it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(400, sentence)


class NotFound(Problem):
    """404: nothing visible to this principal in this tenant is named so."""

    def __init__(self, sentence: str = "There is no such study, series or instance here.") -> None:
        super().__init__(404, sentence)


class NotAcceptable(Problem):
    """406: none of the representations asked for can be given; the sentence says which could."""

    def __init__(self, sentence: str) -> None:
        super().__init__(406, sentence)


class Unavailable(Problem):
    """503: a passing fault; the client may ask again."""

    def __init__(self, sentence: str) -> None:
        super().__init__(503, sentence, {"Retry-After": "2"})


Endpoint = Callable[[Request], Coroutine[None, None, Response]]


def answer(problem: Problem) -> Response:
    """`problem` as ``{"error": sentence}``."""
    body = json.dumps({"error": problem.sentence}).encode()
    return Response(body, problem.status, media_type="application/json", headers=problem.headers)


def answering_problems(endpoint: Endpoint) -> Endpoint:
    """Turn what `endpoint` raises into an answer; an unforeseen error is logged by type and answered with 500."""

    @wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Problem as problem:
            return answer(problem)
        except Retryable:
            return answer(Unavailable("The archive is busy or away; ask again in a moment."))
        except SansfilmError as error:
            _log.error("read_failed", error=type(error).__name__)
            return answer(Problem(500, "The archive could not answer this; the reason is in the server's log."))

    return answered
