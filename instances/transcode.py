"""Native pixels to HTJ2K lossless, kept only with the proof that the received bytes come back.

The data set is cut in three: what stands before Pixel Data and what stands after it are stored untouched, in between
stand the codestreams. The *recipe* holds what the middle does not say (the native element's header and the bytes behind
the last frame), so that `restore` gives back the data set exactly as it came. The proof is that very restoration, made
from the stored parts and the recipe, hashed, and compared with the digest of what was received.

    recipe = {"version": 1,
              "element_offset": where the Pixel Data element begins, in either form,
              "stored_end": where the untouched rest begins in the stored data set,
              "header": the native element's header, hex,
              "sample_type": NumPy's name of the container, "<u2" "<i2" "|u1" "|i1",
              "tail": bytes of the native value behind the last frame, hex}
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from instances.description import Description
from instances.elements import PIXEL_DATA, Buffer
from instances.htj2k import CodecError, Samples, decode_frame, encode_frame
from instances.pixels import PixelLayout
from instances.syntax import DEFLATED_LE, EXPLICIT_LE, HTJ2K_LOSSLESS_RPCL, NATIVE
from schemas.reasons import KeptReason
from schemas.record import InstanceAttributes

RECIPE_VERSION: Final = 1

_ELEMENT_HEADER = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_ITEM = struct.Struct("<4sL")
_ITEM_TAG = b"\xfe\xff\x00\xe0"
_OFFSET_MAX = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The data set is to be stored as it came."""

    reason: KeptReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcoded:
    """The data set in its new form, proven."""

    #: To be written one after the other; the first and the last are views of what was received.
    parts: Sequence[Buffer]
    transfer_syntax: str
    #: How `restore` undoes it; JSON-able.
    recipe: dict[str, object]
    #: Where the Pixel Data value begins in the new data set.
    pixel_offset: int
    #: (offset, size) of each frame's item content in the new data set.
    frames: tuple[tuple[int, int], ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(part) for part in self.parts)


def wire_sha256(dataset: Buffer) -> str:
    """The digest under which a data set is known: SHA-256 of its bytes as received, without group 2, in hex."""
    return hashlib.sha256(dataset).hexdigest()


def transcode(
    dataset: Buffer,
    transfer_syntax: str,
    description: Description,
    *,
    max_bytes: int,
    received_sha256: str | None = None,
) -> Transcoded | Kept:
    """`dataset` as HTJ2K lossless RPCL, if it may be, can be, proves reversible and becomes smaller.

    `received_sha256` is `wire_sha256(dataset)` if the caller has it already. Encoding, decoding and hashing release the
    GIL; memory is about the size of the data set's pixels.
    """
    reason = _obstacle(dataset, transfer_syntax, description, max_bytes)
    pixels = description.pixels
    if reason is not None or pixels is None:
        return Kept(reason=reason or KeptReason.NO_PIXEL_DATA)
    view = memoryview(dataset)
    try:
        candidate = _encode(view, pixels, description.instance)
        if candidate.size_bytes >= len(view):
            return Kept(reason=KeptReason.NOT_SMALLER)
        proven = _restored_sha256(candidate)
    except CodecError:
        return Kept(reason=KeptReason.CODEC_FAILED)
    if proven != (received_sha256 or wire_sha256(view)):
        return Kept(reason=KeptReason.PROOF_FAILED)
    return candidate


def restore(dataset: Buffer, recipe: Mapping[str, object]) -> bytes:
    """The data set as it was received, from a stored one and its recipe.

    Raises:
        CodecError: the two do not belong together, or the stored data set is damaged.
    """
    view = memoryview(dataset)
    try:
        start, end = int(str(recipe["element_offset"])), int(str(recipe["stored_end"]))
        return b"".join(_original(view[:start], view[start:end], view[end:], recipe))
    except (KeyError, ValueError, TypeError, struct.error) as error:
        raise CodecError("the recipe does not fit the stored data set") from error


def _obstacle(dataset: Buffer, transfer_syntax: str, description: Description, max_bytes: int) -> KeptReason | None:
    """The first reason not to transcode."""
    pixels, instance = description.pixels, description.instance
    if description.warnings:
        return KeptReason.HAS_WARNINGS
    if transfer_syntax == DEFLATED_LE:
        return KeptReason.NOT_EXPLICIT_LITTLE_ENDIAN
    if pixels is None:
        return KeptReason.NO_PIXEL_DATA
    if transfer_syntax not in NATIVE or pixels.encapsulated:
        return KeptReason.ALREADY_COMPRESSED
    if transfer_syntax != EXPLICIT_LE or not pixels.vr:
        return KeptReason.NOT_EXPLICIT_LITTLE_ENDIAN
    tag = int.from_bytes(dataset[pixels.element_offset : pixels.element_offset + 4], "little")
    if instance.bits_allocated not in (8, 16) or tag != (PIXEL_DATA & 0xFFFF) << 16 | PIXEL_DATA >> 16:
        return KeptReason.BITS_ALLOCATED
    if instance.samples_per_pixel != 1:
        return KeptReason.SAMPLES_PER_PIXEL
    if not pixels.frames:
        return KeptReason.PIXEL_LENGTH
    return KeptReason.TOO_LARGE if len(dataset) > max_bytes else None


def _encode(view: memoryview, pixels: PixelLayout, instance: InstanceAttributes) -> Transcoded:
    sample_type = np.dtype(f"<{'i' if instance.pixel_representation == 1 else 'u'}{instance.bits_allocated // 8}")
    shape = (instance.rows, instance.columns)
    codestreams = [
        encode_frame(np.frombuffer(view[at : at + size], sample_type).reshape(shape), instance.bits_stored)
        for at, size in pixels.frames
    ]
    middle, places = _encapsulated(codestreams)
    start = pixels.element_offset
    frames_end = sum(pixels.frames[-1])
    recipe: dict[str, object] = {
        "version": RECIPE_VERSION,
        "element_offset": start,
        "stored_end": start + len(middle),
        "header": view[start : pixels.value_offset].hex(),
        "sample_type": sample_type.str,
        "tail": view[frames_end : pixels.end_offset].hex(),
    }
    return Transcoded(
        parts=(view[:start], middle, view[pixels.end_offset :]),
        transfer_syntax=HTJ2K_LOSSLESS_RPCL,
        recipe=recipe,
        pixel_offset=start + len(_ELEMENT_HEADER),
        frames=tuple((start + offset, size) for offset, size in places),
    )


def _encapsulated(codestreams: Sequence[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """The whole encapsulated element (PS3.5 A.4), and (offset, size) of each item's content in it."""
    sizes = [len(codestream) + len(codestream) % 2 for codestream in codestreams]
    starts = [0]
    for size in sizes[:-1]:
        starts.append(starts[-1] + 8 + size)
    table = np.array(starts, "<u4").tobytes() if starts[-1] <= _OFFSET_MAX else b""
    pieces = [_ELEMENT_HEADER, _ITEM.pack(_ITEM_TAG, len(table)), table]
    for codestream, size in zip(codestreams, sizes, strict=True):
        pieces += (_ITEM.pack(_ITEM_TAG, size), codestream, b"\0" * (size - len(codestream)))
    pieces.append(_SEQUENCE_DELIMITER)
    first = len(_ELEMENT_HEADER) + 8 + len(table) + 8
    return b"".join(pieces), [(first + start, size) for start, size in zip(starts, sizes, strict=True)]


def _restored_sha256(candidate: Transcoded) -> str:
    before, middle, after = (memoryview(part) for part in candidate.parts)
    digest = hashlib.sha256()
    for piece in _original(before, middle, after, candidate.recipe):
        digest.update(piece)
    return digest.hexdigest()


def _original(
    before: memoryview, middle: memoryview, after: memoryview, recipe: Mapping[str, object]
) -> Iterator[Buffer]:
    """The received data set, piece by piece, from the stored parts."""
    if recipe["version"] != RECIPE_VERSION:
        raise CodecError("the recipe is of another version")
    sample_type = np.dtype(str(recipe["sample_type"]))
    yield before
    yield bytes.fromhex(str(recipe["header"]))
    for codestream in _codestreams(middle):
        samples: Samples = decode_frame(codestream)
        yield np.ascontiguousarray(samples.astype(sample_type, copy=False)).data.cast("B")
    yield bytes.fromhex(str(recipe["tail"]))
    yield after


def _codestreams(middle: memoryview) -> Iterator[memoryview]:
    """Item contents behind the offset table of an encapsulated element."""
    if bytes(middle[: len(_ELEMENT_HEADER)]) != _ELEMENT_HEADER:
        raise CodecError("there is no encapsulated Pixel Data where the recipe says")
    pos, index = len(_ELEMENT_HEADER), 0
    while middle[pos : pos + 8] != _SEQUENCE_DELIMITER:
        tag, size = _ITEM.unpack_from(middle, pos)
        if tag != _ITEM_TAG:
            raise CodecError("the stored fragments are damaged")
        if index:
            yield middle[pos + 8 : pos + 8 + size]
        pos, index = pos + 8 + size, index + 1
