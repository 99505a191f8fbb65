"""Reading answers apart with the standard library, not with the code under test."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

import httpx


@dataclass(frozen=True, slots=True)
class ReadPart:
    """One part of a multipart answer."""

    content_type: str
    transfer_syntax: str
    body: bytes


def parts_of(answer: httpx.Response) -> list[ReadPart]:
    """The parts of a multipart/related answer (RFC 2046 5.1.1, RFC 2387)."""
    header = Message()
    header["content-type"] = answer.headers["content-type"]
    assert header.get_content_type() == "multipart/related", answer.headers["content-type"]
    boundary = b"--" + str(header.get_param("boundary")).encode()
    assert answer.content.startswith(boundary + b"\r\n")
    assert answer.content.endswith(boundary + b"--\r\n")
    pieces = answer.content.split(boundary)[1:-1]
    parts = [_part(piece) for piece in pieces]
    assert all(part.content_type == header.get_param("type") for part in parts)
    return parts


def _part(piece: bytes) -> ReadPart:
    head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    fields = BytesParser(policy=HTTP).parsebytes(head + b"\r\n\r\n", headersonly=True)
    assert body.endswith(b"\r\n")
    parameters = dict(fields["content-type"].params)
    return ReadPart(
        fields["content-type"].content_type, str(parameters.get("transfer-syntax", "")), body.removesuffix(b"\r\n")
    )
