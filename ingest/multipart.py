"""The body of a STOW-RS request, part by part, in bounded memory (PS3.18 8.7.1, 10.5.1; RFC 2387)."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message as Headers
from typing import Final, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

#: Parts of one request; what is remembered of each is small, but not nothing.
PARTS_MAX: Final = 100_000
#: What may come before the first boundary, to be ignored (RFC 2046 5.1.1).
PREAMBLE_MAX_BYTES: Final = 65_536


class BadRequest(Exception):
    """The request cannot be taken; answer `status` with the message as its sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class PartSink(Protocol):
    """Who takes the parts. Each method may raise BadRequest."""

    def begin_part(self) -> None:
        """A part begins."""

    def take(self, data: memoryview) -> None:
        """Bytes of the part, valid during the call."""

    def end_part(self) -> None:
        """The part is complete."""


class MultipartBody:
    """Feeds the parts of a body to a sink."""

    def __init__(self, boundary: bytes, sink: PartSink) -> None:
        self._sink = sink
        self._first = b"\r\n--" + boundary
        #: The beginning of the body until its first boundary, as if a line had ended before; None behind that.
        self._preamble: bytearray | None = bytearray(b"\r\n")
        self._name = b""
        self._value = b""
        self._parts = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_name,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_part_data": self._data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise BadRequest(400, "the multipart boundary is too long") from error

    def feed(self, data: bytes) -> None:
        """More of the body.

        Raises:
            BadRequest: it is no multipart body, or the sink does not want it.
        """
        try:
            self._parser.write(data if self._preamble is None else self._behind_preamble(self._preamble, data))
        except FormParserError as error:
            raise BadRequest(400, "the body is not multipart/related with the boundary it names") from error

    def _behind_preamble(self, preamble: bytearray, data: bytes) -> bytes:
        """What of the body so far the parser is to have: nothing until the first boundary has come."""
        preamble += data
        found = preamble.find(self._first)
        if found >= 0:
            self._preamble = None
            return bytes(preamble[found + 2 :])
        if len(preamble) > PREAMBLE_MAX_BYTES + len(self._first):
            raise BadRequest(400, "the body is not multipart/related with the boundary it names")
        return b""

    def finish(self) -> None:
        """The body is over.

        Raises:
            BadRequest: it ended before its closing boundary.
        """
        if not self._ended:
            raise BadRequest(400, "the body ends before its closing boundary: its last part was not stored")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise BadRequest(413, f"more than {PARTS_MAX} parts in one request")
        self._sink.begin_part()

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name, value = self._name.lower(), self._value.decode("latin-1")
        self._name = self._value = b""
        if name == b"content-type" and media_type(value)[0] != "application/dicom":
            raise BadRequest(415, "a part is not application/dicom")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._sink.take(memoryview(data)[start:end])

    def _end_part(self) -> None:
        self._sink.end_part()

    def _end(self) -> None:
        self._ended = True


def media_type(value: str) -> tuple[str, Mapping[str, str]]:
    """A Content-Type's lower-case type and its parameters (RFC 9110 8.3.1)."""
    headers = Headers()
    headers["content-type"] = value.replace("\r", " ").replace("\n", " ")
    parameters: list[tuple[str, str | tuple[str, str, str]]] = headers.get_params(failobj=[], unquote=True)  # type: ignore[assignment]  # the stub forgets RFC 2231
    # An extended parameter (RFC 2231) comes as (charset, language, text).
    texts = {name.lower(): text[2] if isinstance(text, tuple) else text for name, text in parameters[1:]}
    return headers.get_content_type(), texts
