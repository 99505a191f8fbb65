"""Native little endian pixel data of stored instances: by byte range where it is stored so, else decoded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from archive.catalog import Readable
from dicomweb.problems import NotAcceptable, NotFound
from dicomweb.reading import Reading
from dicomweb.waiting import PIECE_MAX_BYTES
from instances.codec import DecodeFailed
from instances.description import describe
from instances.elements import Buffer, WalkError, walk
from instances.part10 import split
from instances.pixels import PIXEL_TAGS, native_size_bits
from instances.syntax import DEFLATED_LE, EXPLICIT_LE, IMPLICIT_LE, NATIVE, Encoding
from runtime.errors import Retryable, SansfilmError
from schemas.record import InstanceRecord

#: A decoded instance is whole in memory, as is its stored form, in this process and in the child that decodes it.
_COPIES: Final = 4
_UNTOLD: Final = "The frames of this instance cannot be told apart; ask for the whole instance."
_UNDECODABLE: Final = "This instance cannot be decoded; ask for transfer-syntax=* to get it as stored."


async def explicit_le(reading: Reading, readable: Readable) -> bytes:
    """The native Explicit VR Little Endian data set of an instance; of our own transcode, as it was received.

    Raises:
        NotAcceptable: its pixel data cannot be decoded; the stored bytes can still be had with ``transfer-syntax=*``.
    """
    with _decoding():
        if readable.location.size_bytes > reading.settings.decode_memory_max_bytes // _COPIES:
            raise NotAcceptable("This instance is too large to be decoded here; ask for transfer-syntax=*.")
        return await reading.explicit_le(readable)


async def native_frame(reading: Reading, readable: Readable, number: int) -> bytes:
    """Frame `number`, from 1, decoded: alone where the stored frames can be told apart, else with the others.

    Raises:
        NotAcceptable, NotFound: as `explicit_le` and `frame_of`.
    """
    record = readable.record
    if record.frames and record.stored_transfer_syntax not in NATIVE:
        offset, size_bytes = record.frames[number - 1]
        codestream = await reading.read(readable, offset, size_bytes)
        with _decoding():
            return await reading.decoded_frame(readable, codestream)
    dataset = await explicit_le(reading, readable)
    return await reading.call(lambda: frame_of(dataset, number))


async def stored_frame(reading: Reading, readable: Readable, number: int) -> bytes:
    """Frame `number`, from 1, as it is stored.

    Raises:
        NotAcceptable: which fragments make the frame is not said.
        NotFound: there is no such frame.
    """
    record = readable.record
    if record.frames:
        offset, size_bytes = record.frames[number - 1]
        return await reading.read(readable, offset, size_bytes)
    async with reading.decode_slot:
        file = await reading.read(readable)
        return await reading.call(lambda: codestream_of(split(file)[1], record.stored_transfer_syntax, number))


async def native_pixels(reading: Reading, readable: Readable) -> tuple[AsyncIterator[bytes], int]:
    """The value of Pixel Data in pieces of at most `PIECE_MAX_BYTES`, and its size.

    Raises:
        NotFound, NotAcceptable: there is no pixel data, or it cannot be decoded.
    """
    record = readable.record
    if not has_pixels(record):
        raise NotFound("This instance has no pixel data.")
    if record.stored_transfer_syntax in (EXPLICIT_LE, IMPLICIT_LE) and record.frames:
        begin, size_bytes = record.pixel_offset, sum(record.frames[-1]) - record.pixel_offset
        size_bytes += size_bytes % 2
        return _range(reading, readable, begin, size_bytes), size_bytes
    value = pixel_value(await explicit_le(reading, readable))
    return reading.pieces(value), len(value)


def has_pixels(record: InstanceRecord) -> bool:
    """Whether there is Pixel Data. The record of a deflated instance cannot say where, only that there are rows."""
    return record.pixel_offset > 0 or (record.stored_transfer_syntax == DEFLATED_LE and record.instance.rows > 0)


def pixel_value(dataset: bytes) -> memoryview:
    """A view of the value of Pixel Data, or its float forms, in a native Explicit VR Little Endian data set.

    Raises:
        NotFound: there is none.
    """
    try:
        for element in walk(dataset, Encoding()):
            if element.tag in PIXEL_TAGS:
                return memoryview(dataset)[element.value_offset : element.value_end]
    except WalkError:
        pass
    raise NotFound("This instance has no pixel data.")


def frame_of(dataset: bytes, number: int) -> bytes:
    """Frame `number`, from 1, of a native Explicit VR Little Endian data set.

    Frames of single bits follow each other without gaps; they are shifted to begin at a byte (PS3.5 8.1.1).

    Raises:
        NotFound: there is no such frame.
        NotAcceptable: the attributes do not say how large a frame is.
    """
    described = describe(dataset, EXPLICIT_LE)
    if described.pixels is None:
        raise NotFound("This instance has no pixel data.")
    if not 1 <= number <= max(described.instance.number_of_frames, 1):
        raise NotFound("This instance has fewer frames.")
    if described.pixels.frames:
        offset, size_bytes = described.pixels.frames[number - 1]
        return dataset[offset : offset + size_bytes]
    bits = native_size_bits(described.instance)
    first, value = bits * (number - 1), memoryview(dataset)[described.pixels.value_offset :]
    if not bits or first + bits > 8 * described.pixels.value_size_bytes:
        raise NotAcceptable(_UNTOLD)
    covering = np.frombuffer(value[first // 8 : -(-(first + bits) // 8)], np.uint8)
    unpacked = np.unpackbits(covering, bitorder="little")[first % 8 : first % 8 + bits]
    return np.packbits(unpacked, bitorder="little").tobytes()


def codestream_of(dataset: Buffer, transfer_syntax: str, number: int) -> bytes:
    """The stream of frame `number`, from 1, joined from its fragments (PS3.5 A.4).

    Raises:
        NotAcceptable: which fragments make the frame is not said.
    """
    described = describe(dataset, transfer_syntax)
    count = max(described.instance.number_of_frames, 1)
    pixels, view = described.pixels, memoryview(dataset)
    table = pixels.offset_table if pixels and len(pixels.offset_table) == count else ()
    if pixels is None or not pixels.fragments or number > count or (count > 1 and not table):
        raise NotAcceptable(_UNTOLD)
    bounds = (*(table or (0,)), pixels.value_size_bytes)
    first = pixels.fragments[0][0]
    found = [view[at : at + size] for at, size in pixels.fragments if bounds[number - 1] <= at - first < bounds[number]]
    if not found:  # the offset table is wrong
        raise NotAcceptable(_UNTOLD)
    return b"".join(found)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except Retryable:
        raise
    except (SansfilmError, DecodeFailed) as error:
        raise NotAcceptable(_UNDECODABLE) from error


async def _range(reading: Reading, readable: Readable, begin: int, size_bytes: int) -> AsyncIterator[bytes]:
    for offset in range(begin, begin + size_bytes, PIECE_MAX_BYTES):
        yield await reading.read(readable, offset, min(PIECE_MAX_BYTES, begin + size_bytes - offset))
