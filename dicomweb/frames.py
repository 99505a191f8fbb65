"""Frames and bulk data of stored instances (PS3.18 10.4.1.1.3 to 10.4.1.1.6), read by byte range.

A frame stored as it is asked for costs one positioned read of its own bytes. ``application/octet-stream`` without a
transfer syntax means native little endian samples, decoded where they are stored compressed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from archive.catalog import Readable
from dicomweb.accept import MediaRange, accepted
from dicomweb.metadata import find_bulk
from dicomweb.multipart import Multipart, Part, new_boundary, single_part
from dicomweb.native import has_pixels, native_frame, native_pixels, stored_frame
from dicomweb.problems import BadRequest, Endpoint, NotAcceptable, NotFound, answering_problems
from dicomweb.reading import Reading
from dicomweb.wado import HEAD_MAX_BYTES, INSTANCE
from dicomweb.waiting import PIECE_MAX_BYTES, StreamedAnswer
from instances import syntax
from instances.part10 import split

OCTET_STREAM: Final = "application/octet-stream"
FRAMES_MAX: Final = 10_000
#: PS3.18 Tables 8.7.3-2 to 8.7.3-5: the media types that a stored stream of this syntax may be called.
MEDIA_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    syntax.JPEG_BASELINE: ("image/jpeg",),
    syntax.JPEG_EXTENDED: ("image/jpeg",),
    syntax.JPEG_LOSSLESS: ("image/jpeg",),
    syntax.JPEG_LOSSLESS_SV1: ("image/jpeg", "image/jll"),
    syntax.RLE_LOSSLESS: ("image/dicom-rle", "image/x-dicom-rle"),
    syntax.JPEG_LS_LOSSLESS: ("image/jls", "image/x-jls"),
    syntax.JPEG_LS_NEAR_LOSSLESS: ("image/jls", "image/x-jls"),
    syntax.JPEG_2000_LOSSLESS: ("image/jp2",),
    syntax.JPEG_2000: ("image/jp2",),
    syntax.HTJ2K_LOSSLESS: ("image/jphc",),
    syntax.HTJ2K_LOSSLESS_RPCL: ("image/jphc",),
    syntax.HTJ2K: ("image/jphc",),
}
_LIST: Final = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_PATH: Final = re.compile(r"[0-9A-Fa-f]{8}(/[0-9]{1,6}/[0-9A-Fa-f]{8}){0,32}")
_PIXEL_DATA: Final = "7FE00010"


def frame_routes(reading: Reading) -> list[Route]:
    """The frame and bulk data resources, relative to the DICOMweb root."""
    return [
        Route(f"{INSTANCE}/frames/{{frames}}", _frames(reading), methods=["GET"]),
        Route(f"{INSTANCE}/bulkdata/{{path:path}}", _bulk_data(reading), methods=["GET"]),
    ]


def choose_frame(stored: str, asked: MediaRange) -> tuple[str, str] | None:
    """The media type and transfer syntax to give a frame in that is stored in `stored`; None if not as asked."""
    syntax_asked = asked.transfer_syntax
    native = syntax.EXPLICIT_LE
    if asked.covers(OCTET_STREAM):
        if syntax_asked in ("", native) or (syntax_asked == "*" and stored in syntax.NATIVE):
            return OCTET_STREAM, native
        return (OCTET_STREAM, stored) if syntax_asked in ("*", stored) else None
    for media_type in MEDIA_TYPES.get(stored, ()):
        if asked.covers(media_type) and syntax_asked in ("", "*", stored):
            return media_type, stored
    return None


def _frames(reading: Reading) -> Endpoint:
    async def frames(request: Request) -> Response:
        numbers = _numbers(request.path_params["frames"])
        [readable] = await reading.readables(request)
        _check(readable, numbers)
        media_range, media_type, chosen = _negotiated(request, readable.record.stored_transfer_syntax, len(numbers))
        content_type = f"{media_type}; transfer-syntax={chosen}"
        # The first frame is read before the status is sent, so that an undecodable stream is a 406 and no torn answer.
        first = await _frame(reading, readable, numbers[0], chosen)
        if not media_range.multipart and media_range.media_type != "*/*":
            return _whole(reading, first, content_type)
        if len(numbers) == 1:
            return _whole(reading, *single_part(media_type, content_type, first))
        parts = _parts(reading, readable, numbers, first, content_type, chosen)
        multipart = Multipart(part_type=media_type, parts=parts, boundary=new_boundary())
        return StreamedAnswer(multipart.body(), media_type=multipart.content_type)

    return answering_problems(frames)


def _whole(reading: Reading, body: bytes, content_type: str) -> Response:
    """A body in memory: at once where it is small, else as its client reads it."""
    if len(body) <= PIECE_MAX_BYTES:
        return Response(body, media_type=content_type)
    headers = {"Content-Length": str(len(body))}
    return StreamedAnswer(reading.pieces(body), media_type=content_type, headers=headers)


def _negotiated(request: Request, stored: str, count: int) -> tuple[MediaRange, str, str]:
    for media_range in accepted(request):
        chosen = choose_frame(stored, media_range)
        if chosen and (media_range.multipart or media_range.media_type == "*/*" or count == 1):
            return media_range, *chosen
    raise NotAcceptable(
        "These frames cannot be given so: ask for application/octet-stream, with transfer-syntax=* for the stored "
        "stream, and for multipart/related if there are several."
    )


async def _parts(
    reading: Reading, readable: Readable, numbers: Sequence[int], first: bytes, content_type: str, chosen: str
) -> AsyncIterator[Part]:
    yield Part(content_type=content_type, pieces=reading.pieces(first))
    for number in numbers[1:]:
        body = await _frame(reading, readable, number, chosen)
        yield Part(content_type=content_type, pieces=reading.pieces(body))


async def _frame(reading: Reading, readable: Readable, number: int, chosen: str) -> bytes:
    """The bytes of one frame in the syntax chosen."""
    record = readable.record
    stored = record.stored_transfer_syntax
    if chosen == syntax.EXPLICIT_LE and (stored not in (syntax.EXPLICIT_LE, syntax.IMPLICIT_LE) or not record.frames):
        return await native_frame(reading, readable, number)
    return await stored_frame(reading, readable, number)


def _numbers(text: str) -> Sequence[int]:
    if not _LIST.fullmatch(text):
        raise BadRequest("The frame list is not a list of whole numbers from 1, separated by commas.")
    numbers = [int(one) for one in text.split(",")]
    if len(numbers) > FRAMES_MAX:
        raise BadRequest("The frame list is too long.")
    return numbers


def _check(readable: Readable, numbers: Sequence[int]) -> None:
    record = readable.record
    if not has_pixels(record):
        raise NotFound("This instance has no pixel data.")
    count = len(record.frames) or max(record.instance.number_of_frames, 1)
    if max(numbers) > count:
        raise NotFound("This instance has fewer frames.")


# ---- bulk data ----------------------------------------------------------------------------------------------------


def _bulk_data(reading: Reading) -> Endpoint:
    async def bulk_data(request: Request) -> Response:
        path = request.path_params["path"]
        if not _PATH.fullmatch(path):
            raise BadRequest("The path of bulk data is not a tag, or tags and item numbers in turn.")
        media_range = next((one for one in accepted(request) if one.covers(OCTET_STREAM)), None)
        if media_range is None or media_range.transfer_syntax not in ("", "*", syntax.EXPLICIT_LE):
            raise NotAcceptable("Bulk data is given as application/octet-stream, native little endian.")
        [readable] = await reading.readables(request)
        if path.upper() == _PIXEL_DATA:
            pieces, size_bytes = await native_pixels(reading, readable)
        else:
            pieces, size_bytes = await _value(reading, readable, path)
        if not media_range.multipart:
            return StreamedAnswer(pieces, media_type=OCTET_STREAM, headers={"Content-Length": str(size_bytes)})
        part = Part(content_type=OCTET_STREAM, pieces=pieces)
        multipart = Multipart(part_type=OCTET_STREAM, parts=_one(part), boundary=new_boundary())
        return StreamedAnswer(multipart.body(), media_type=multipart.content_type)

    return answering_problems(bulk_data)


async def _one(part: Part) -> AsyncIterator[Part]:
    yield part


async def _value(reading: Reading, readable: Readable, path: str) -> tuple[AsyncIterator[bytes], int]:
    record = readable.record
    size_bytes = min(record.pixel_offset or readable.location.size_bytes, HEAD_MAX_BYTES)
    file = await reading.read(readable, 0, size_bytes)
    found = await reading.call(lambda: find_bulk(split(file)[1], record.stored_transfer_syntax, path))
    if found is None:
        raise NotFound("This instance has no such bulk data.")
    value = bytes(found[0])
    return reading.pieces(value), len(value)
