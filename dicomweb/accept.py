"""Media types a client accepts (RFC 9110 12.5.1, PS3.18 8.7.4), with the parameters DICOMweb negotiates by.

Parsed here and not by a library because clients send ``type=application/octet-stream`` without the quotes that the
slash demands, and mean it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from dicomweb.problems import BadRequest

MULTIPART_RELATED: Final = "multipart/related"
RANGES_MAX: Final = 64
_PIECE = re.compile(r'(?:[^,;"]|"(?:[^"\\]|\\.)*")*')


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One acceptable media type. Names are lower case; values have lost their quotes."""

    #: ``application/dicom``, ``multipart/related``, ``image/*``, ``*/*`` ...
    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def multipart(self) -> bool:
        """Whether this asks for multipart/related."""
        return self.media_type == MULTIPART_RELATED

    @property
    def content(self) -> str:
        """The type of a part, or of the whole answer: what `type` says of a multipart, else the media type."""
        return self.parameters.get("type", "*/*").lower() if self.multipart else self.media_type

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax asked for: a UID, ``*``, or empty for the default of PS3.18 8.7.3."""
        return self.parameters.get("transfer-syntax", "")

    def covers(self, media_type: str) -> bool:
        """Whether `media_type` falls in this range, by its content type."""
        content = self.content
        return content in ("*/*", media_type) or (
            content.endswith("/*") and media_type.startswith(content.removesuffix("*"))
        )


def accepted(request: Request) -> Sequence[MediaRange]:
    """What `request` accepts, best first: the ``accept`` query parameter before the header fields (PS3.18 8.3.3.1).

    Raises:
        BadRequest: the field cannot be read.
    """
    asked = request.query_params.getlist("accept") or request.headers.getlist("accept")
    ranges = [media_range for value in asked for media_range in parse(value)]
    return sorted(ranges, key=lambda media_range: -media_range.quality) or [MediaRange(media_type="*/*")]


def parse(value: str) -> Sequence[MediaRange]:
    """The media ranges of one Accept field, in its order; those with quality 0 are left out.

    Raises:
        BadRequest: it is no list of media ranges, or longer than `RANGES_MAX`.
    """
    elements = _split(value, ",")
    if len(elements) > RANGES_MAX:
        raise BadRequest("The Accept field names too many media types.")
    ranges = [_media_range(element) for element in elements if element]
    return [media_range for media_range in ranges if media_range.quality > 0]


def _media_range(element: str) -> MediaRange:
    media_type, *pairs = _split(element, ";")
    if media_type.count("/") != 1:
        raise BadRequest("The Accept field is not a list of media types.")
    parameters = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        parameters[name.strip().lower()] = _unquoted(text.strip())
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        raise BadRequest("A quality in the Accept field is not a number.") from None
    return MediaRange(media_type=media_type.lower(), parameters=parameters, quality=quality)


def _split(value: str, separator: str) -> list[str]:
    pieces, begin, position = [], 0, 0
    while position < len(value):
        position = _PIECE.match(value, position).end()  # type: ignore[union-attr]  # the empty piece always matches
        if position < len(value) and value[position] == '"':
            raise BadRequest("A quoted string in the Accept field does not end.")
        if position >= len(value) or value[position] == separator:
            pieces.append(value[begin:position].strip())
            begin = position + 1
        position += 1
    if begin == len(value) and value.endswith(separator):
        pieces.append("")
    return pieces


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
