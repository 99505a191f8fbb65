"""What a browser sends in the body of a POST, because an address is no place for what is searched for."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

import anyio
from starlette.requests import Request

from dicomweb.problems import BadRequest, Problem

BODY_MAX_BYTES: Final = 32_768
FIELDS_MAX: Final = 64


async def form_pairs(request: Request, *, timeout_s: float) -> list[tuple[str, str]]:
    """The fields of an ``application/x-www-form-urlencoded`` body, in order; all of it must come within `timeout_s`.

    Raises:
        Problem: the body is larger than `BODY_MAX_BYTES`, or late: its connection is closed.
        BadRequest: it has more than `FIELDS_MAX` fields.
    """
    try:
        with anyio.fail_after(timeout_s):
            body = await _body(request)
    except TimeoutError:
        raise Problem(408, "This form did not come in time.", {"Connection": "close"}) from None
    try:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest("This form has too many fields.") from None


async def _body(request: Request) -> bytearray:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_MAX_BYTES:
            raise Problem(413, "This form is too large.")
    return body
