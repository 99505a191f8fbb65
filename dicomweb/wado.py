"""WADO-RS (PS3.18 10.4): studies, series and instances as they are stored, or decoded on demand; their metadata.

Which transfer syntax an instance is given in is one function, `choose`: without a parameter Explicit VR Little Endian
(PS3.18 8.7.3), ``*`` the stored one with implicit and big-endian re-encoded, a named one if it is stored so or is
Explicit VR Little Endian. The syntaxes of all instances are judged before the first byte of the answer.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from archive.catalog import Readable
from dicomweb.accept import MediaRange, accepted
from dicomweb.metadata import dataset_json, encoded
from dicomweb.multipart import Multipart, Part, new_boundary
from dicomweb.native import explicit_le, has_pixels
from dicomweb.problems import Endpoint, NotAcceptable, answering_problems
from dicomweb.qido import acceptable_json, service_root
from dicomweb.reading import Reading
from dicomweb.waiting import StreamedAnswer
from instances.part10 import file_header, split
from instances.syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from runtime.errors import Rejected

DICOM: Final = "application/dicom"
INSTANCE: Final = "/studies/{study}/series/{series}/instances/{instance}"
LEVELS: Final = ("/studies/{study}", "/studies/{study}/series/{series}", INSTANCE)
HEAD_MAX_BYTES: Final = 64 * 1024 * 1024
_ROOT: Final = f"sansfilm-{secrets.token_hex(8)}:"


def wado_routes(reading: Reading) -> list[Route]:
    """The retrieve resources of whole instances and of metadata, relative to the DICOMweb root."""
    retrieve, metadata = _retrieve(reading), _metadata(reading)
    routes = [Route(path, retrieve, methods=["GET"]) for path in LEVELS]
    return routes + [Route(f"{path}/metadata", metadata, methods=["GET"]) for path in LEVELS]


def choose(stored: str, asked: str) -> str | None:
    """The transfer syntax to give an instance in that is stored in `stored`; None if it cannot be given as asked."""
    if asked in ("", EXPLICIT_LE):
        return EXPLICIT_LE
    if asked == "*":
        return EXPLICIT_LE if stored in (IMPLICIT_LE, EXPLICIT_BE) else stored
    return stored if asked == stored else None


# ---- whole instances ----------------------------------------------------------------------------------------------


def _retrieve(reading: Reading) -> Endpoint:
    async def retrieve(request: Request) -> Response:
        media_ranges = [one for one in accepted(request) if one.covers(DICOM)]
        if not media_ranges:
            raise NotAcceptable("Instances are given as application/dicom, in multipart/related or one alone.")
        readables = await reading.readables(request)
        for media_range in media_ranges:
            syntaxes = [choose(r.record.stored_transfer_syntax, media_range.transfer_syntax) for r in readables]
            alone = media_range.media_type == DICOM
            if None in syntaxes or (alone and len(readables) > 1):
                continue
            chosen = [(readable, str(syntax)) for readable, syntax in zip(readables, syntaxes, strict=True)]
            return await (_single if alone else _several)(reading, chosen, media_range)
        raise NotAcceptable(
            "Not every instance can be given so: ask for Explicit VR Little Endian, for transfer-syntax=* "
            "or for the stored transfer syntax, and for multipart/related unless it is one instance."
        )

    return answering_problems(retrieve)


async def _single(reading: Reading, chosen: Sequence[tuple[Readable, str]], asked: MediaRange) -> Response:
    syntax, pieces, length = await _given(reading, *chosen[0], asked)
    headers = {"Content-Length": str(length)}
    return StreamedAnswer(pieces, media_type=f"{DICOM}; transfer-syntax={syntax}", headers=headers)


async def _several(reading: Reading, chosen: Sequence[tuple[Readable, str]], asked: MediaRange) -> Response:
    if len(chosen) == 1:
        # One instance fails as a whole, so its decoding may still decide the status.
        syntax, pieces, _ = await _given(reading, *chosen[0], asked)
        parts = _one(Part(content_type=f"{DICOM}; transfer-syntax={syntax}", pieces=pieces))
    else:
        parts = _parts(reading, chosen)
    multipart = Multipart(part_type=DICOM, parts=parts, boundary=new_boundary())
    return StreamedAnswer(multipart.body(), media_type=multipart.content_type)


async def _given(
    reading: Reading, readable: Readable, syntax: str, asked: MediaRange
) -> tuple[str, AsyncIterator[bytes], int]:
    """One instance: its transfer syntax, its file, its size. Who takes any syntax gets what cannot be re-encoded as it
    is stored."""
    try:
        return syntax, *await _file(reading, readable, syntax)
    except NotAcceptable:
        if asked.transfer_syntax != "*":
            raise
        return readable.record.stored_transfer_syntax, reading.stream(readable), readable.location.size_bytes


async def _one(part: Part) -> AsyncIterator[Part]:
    yield part


async def _parts(reading: Reading, chosen: Sequence[tuple[Readable, str]]) -> AsyncIterator[Part]:
    """A part for each instance. One that turns out not to be decodable is given as stored: it must not go missing."""
    for readable, syntax in chosen:
        try:
            pieces, _ = await _file(reading, readable, syntax)
        except NotAcceptable:
            syntax = readable.record.stored_transfer_syntax
            pieces = reading.stream(readable)
        yield Part(content_type=f"{DICOM}; transfer-syntax={syntax}", pieces=pieces)


async def _file(reading: Reading, readable: Readable, syntax: str) -> tuple[AsyncIterator[bytes], int]:
    """A Part-10 file of an instance in `syntax`, and its size."""
    if syntax == readable.record.stored_transfer_syntax:
        return reading.stream(readable), readable.location.size_bytes
    dataset = await explicit_le(reading, readable)
    instance = readable.record.instance
    header = file_header(
        sop_class_uid=instance.sop_class_uid, sop_instance_uid=instance.sop_instance_uid, transfer_syntax=syntax
    )
    return _joined(header, reading.pieces(dataset)), len(header) + len(dataset)


async def _joined(header: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield header
    async for piece in pieces:
        yield piece


# ---- metadata -----------------------------------------------------------------------------------------------------


def _metadata(reading: Reading) -> Endpoint:
    async def metadata(request: Request) -> Response:
        media_type = acceptable_json(request)
        readables = await reading.readables(request)
        return StreamedAnswer(_array(reading, readables, service_root(request)), media_type=media_type)

    return answering_problems(metadata)


async def _array(reading: Reading, readables: Sequence[Readable], root: str) -> AsyncIterator[bytes]:
    prefix, address = _ROOT.encode(), root.encode()
    opening = b"["
    for first in range(0, len(readables), 16):
        bodies = await reading.call(partial(_head_jsons, reading, readables[first : first + 16]))
        yield opening + b",".join(bodies).replace(prefix, address)
        opening = b","
    yield b"]"


def _head_jsons(reading: Reading, readables: Sequence[Readable]) -> list[bytes]:
    return [_head_json(reading, one) for one in readables]


def _head_json(reading: Reading, readable: Readable) -> bytes:
    """The instance's metadata with `_ROOT` in place of the service's address, remembered by version."""
    key = (readable.record.attributes.tenant, readable.location)
    known = reading.heads.get(key)
    if known is None:
        known = encoded(_head(reading, readable))
        reading.heads.put(key, known)
    return known


def _head(reading: Reading, readable: Readable) -> dict[str, object]:
    record = readable.record
    size_bytes = min(record.pixel_offset or readable.location.size_bytes, HEAD_MAX_BYTES)
    base = f"{_ROOT}/studies/{readable.study_instance_uid}/series/{readable.series_instance_uid}/instances/"
    base += f"{record.instance.sop_instance_uid}/bulkdata/"
    file = reading.read_blocking(readable, 0, size_bytes)
    try:
        _, dataset = split(file)
    except Rejected:
        return {}
    body = dataset_json(dataset, record.stored_transfer_syntax, lambda path: base + path)
    body["00083002"] = {"vr": "UI", "Value": [record.stored_transfer_syntax]}
    if has_pixels(record):
        vr = "OW" if record.instance.bits_allocated > 8 and record.stored_transfer_syntax == EXPLICIT_LE else "OB"
        body["7FE00010"] = {"vr": vr, "BulkDataURI": f"{base}7FE00010"}
    return dict(sorted(body.items()))
