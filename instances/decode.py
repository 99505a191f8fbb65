"""Compressed pixels to native ones, in child processes: a stranger's stream may cost a child, never the parent.

What needs no codec (implicit, big-endian and deflated data sets) and what we encoded ourselves is done in this process.
Everything else crosses a pipe to a child that runs under a memory limit (RLIMIT_AS) and a deadline; a child that dies
or stalls is replaced.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final, TypeVar

import numpy as np
from pebble import ProcessExpired, ProcessPool

from instances.codec import DECODABLE, DecodeFailed, decode_native, native_photometric_interpretation
from instances.description import Description, describe
from instances.elements import EXTENDED_OFFSET_TABLE, PIXEL_DATA, Buffer, walk
from instances.htj2k import CodecError
from instances.part10 import split
from instances.pixels import PixelLayout, native_size_bits
from instances.reencode import edited, explicit_element, reencode
from instances.syntax import EXPLICIT_LE, HTJ2K_LOSSLESS_RPCL, NATIVE, encoding_of
from instances.transcode import restore
from runtime.errors import Rejected, Unfileable
from schemas.reasons import QuarantineReason, WarningCode
from schemas.record import InstanceAttributes

__all__ = ["DECODABLE", "DecodeFailed", "IsolatedDecoder"]

R = TypeVar("R")
_EXTENDED_OFFSET_TABLE_LENGTHS: Final = 0x7FE00002
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
#: Native Pixel Data has 32 bits of length (PS3.5 7.1.1).
_NATIVE_BYTES_MAX: Final = 0xFFFFFFFE
#: A decode holds the stream, the samples and the joined result at one time.
_COPIES: Final = 4


class IsolatedDecoder:
    """Decodes pixels. Thread-safe; calls block until the result is there. Close it when done.

    Child processes start with the first compressed stream.
    """

    def __init__(self, *, processes: int, timeout_s: float, memory_max_bytes: int) -> None:
        self._processes = processes
        self._timeout_s = timeout_s
        self._memory_max_bytes = memory_max_bytes
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._closed = False

    def to_explicit_le(self, file: Buffer, *, recipe: Mapping[str, object] | None = None) -> bytes:
        """The data set of a Part-10 file, without group 2, in Explicit VR Little Endian with native pixels.

        Attributes are made to match (PS3.18 8.7.3): Photometric Interpretation, Planar Configuration, offset tables.
        With the `recipe` of a transcode of ours the data set is given exactly as it was received.

        Raises:
            DecodeFailed: it cannot be decoded; serve it as it is stored.
            Unfileable: DECODE_LIMIT and others; it costs more than allowed, or is damaged.
        """
        try:
            meta, dataset = split(file)
        except Rejected as error:
            raise DecodeFailed("this is no DICOM file") from error
        if recipe:
            try:
                return restore(dataset, recipe)
            except CodecError as error:
                raise DecodeFailed("the stored data set cannot be restored") from error
        if meta.transfer_syntax in NATIVE:
            return bytes(reencode(dataset, meta.transfer_syntax))
        description = describe(dataset, meta.transfer_syntax)
        if description.pixels is None:
            if WarningCode.TRUNCATED in description.warnings:  # perhaps within compressed pixels
                raise DecodeFailed("the data set breaks off")
            return bytes(reencode(dataset, meta.transfer_syntax))
        return self._decompressed(dataset, meta.transfer_syntax, description)

    def frame(
        self, codestream: Buffer, transfer_syntax: str, instance: InstanceAttributes, *, trusted: bool = False
    ) -> bytes:
        """The native samples of one frame, little endian, colours by pixel.

        `trusted` says that we encoded it (its record has a recipe): it is then decoded in this process.

        Raises: as `to_explicit_le`.
        """
        self._check_size(instance, 1)
        if trusted and transfer_syntax == HTJ2K_LOSSLESS_RPCL:
            return decode_native(bytes(codestream), transfer_syntax, instance)
        return self._run(_decode_frames, [bytes(codestream)], transfer_syntax, instance)

    def samples(self, dataset: Buffer, transfer_syntax: str) -> bytes:
        """The value of native Pixel Data of a data set, decoded if need be: what `equality.equivalent` compares.

        Colours by pixel; empty without pixel data. Raises: as `to_explicit_le`.
        """
        if transfer_syntax in NATIVE:
            dataset, transfer_syntax = reencode(dataset, transfer_syntax), EXPLICIT_LE
        description = describe(dataset, transfer_syntax)
        pixels = description.pixels
        if pixels is None:
            return b""
        if not pixels.encapsulated:
            value = bytes(dataset[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes])
            return _by_pixel(value, dataset, description)
        return self._pixel_value(dataset, transfer_syntax, description, pixels)

    def close(self) -> None:
        """Stop the child processes; later calls raise DecodeFailed."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # pebble annotates results only
            pool.join()

    def _decompressed(self, dataset: Buffer, transfer_syntax: str, description: Description) -> bytes:
        pixels, instance = description.pixels, description.instance
        assert pixels is not None
        if not pixels.encapsulated:
            return bytes(reencode(dataset, transfer_syntax))
        value = self._pixel_value(dataset, transfer_syntax, description, pixels)
        edits = {
            EXTENDED_OFFSET_TABLE: b"",
            _EXTENDED_OFFSET_TABLE_LENGTHS: b"",
            PIXEL_DATA: explicit_element(
                PIXEL_DATA, b"OB" if instance.bits_allocated == 8 else b"OW", value + b"\0" * (len(value) % 2)
            ),
        }
        if instance.samples_per_pixel == 3:
            photometric = native_photometric_interpretation(transfer_syntax, instance).encode()
            edits[_PHOTOMETRIC_INTERPRETATION] = explicit_element(
                _PHOTOMETRIC_INTERPRETATION, b"CS", photometric + b" " * (len(photometric) % 2)
            )
            edits[_PLANAR_CONFIGURATION] = explicit_element(_PLANAR_CONFIGURATION, b"US", b"\0\0")
        return edited(reencode(dataset, transfer_syntax), edits)

    def _pixel_value(
        self, dataset: Buffer, transfer_syntax: str, description: Description, pixels: PixelLayout
    ) -> bytes:
        instance = description.instance
        count = max(1, instance.number_of_frames)
        self._check_size(instance, count)
        return self._run(_decode_frames, _codestreams(dataset, pixels, count), transfer_syntax, instance)

    def _check_size(self, instance: InstanceAttributes, frames: int) -> None:
        size = native_size_bits(instance) * frames // 8
        if size > min(_NATIVE_BYTES_MAX, self._memory_max_bytes // _COPIES):
            raise Unfileable(QuarantineReason.DECODE_LIMIT, "the native pixels are larger than the limit")

    def _run(
        self,
        function: Callable[[Sequence[bytes], str, InstanceAttributes], R],
        codestreams: Sequence[bytes],
        transfer_syntax: str,
        instance: InstanceAttributes,
    ) -> R:
        if transfer_syntax not in DECODABLE:
            raise DecodeFailed("there is no decoder for the transfer syntax")
        future = self._started().schedule(
            function, args=(codestreams, transfer_syntax, instance), timeout=self._timeout_s
        )
        try:
            result: R = future.result()
        except (FutureTimeoutError, TimeoutError) as error:
            raise Unfileable(QuarantineReason.DECODE_LIMIT, "decoding took longer than the limit") from error
        except MemoryError as error:
            raise Unfileable(QuarantineReason.DECODE_LIMIT, "decoding took more memory than the limit") from error
        except ProcessExpired as error:
            raise DecodeFailed("the decoding process died") from error
        return result

    def _started(self) -> ProcessPool:
        with self._lock:
            if self._closed:
                raise DecodeFailed("the decoder is closed")
            if self._pool is None:
                self._pool = ProcessPool(
                    max_workers=self._processes,
                    initializer=_limit_child,
                    initargs=(self._memory_max_bytes,),
                    context=multiprocessing.get_context("forkserver"),
                )
            return self._pool


def _limit_child(memory_max_bytes: int) -> None:
    """Run in a child before its first stream."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_max_bytes, memory_max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _decode_frames(codestreams: Sequence[bytes], transfer_syntax: str, instance: InstanceAttributes) -> bytes:
    """Run in a child: the native samples of these frames, joined."""
    return b"".join(decode_native(codestream, transfer_syntax, instance) for codestream in codestreams)


def _codestreams(dataset: Buffer, pixels: PixelLayout, count: int) -> list[bytes]:
    """One stream a frame, joined from its fragments (PS3.5 A.4)."""
    view = memoryview(dataset)
    fragments = [view[offset : offset + size] for offset, size in pixels.fragments]
    if len(fragments) == count:
        return [bytes(fragment) for fragment in fragments]
    if count == 1:
        return [b"".join(fragments)]
    if len(pixels.offset_table) != count:
        raise DecodeFailed("which fragments make a frame is not said")
    first = pixels.fragments[0][0]
    bounds = [*pixels.offset_table, pixels.value_size_bytes]
    return [
        b"".join(
            view[at : at + size] for at, size in pixels.fragments if bounds[index] <= at - first < bounds[index + 1]
        )
        for index in range(count)
    ]


def _by_pixel(value: bytes, dataset: Buffer, description: Description) -> bytes:
    """Native samples with their colours by pixel, whatever Planar Configuration says (PS3.3 C.7.6.3.1.3)."""
    instance = description.instance
    planes, depth = instance.samples_per_pixel, instance.bits_allocated // 8
    if planes == 1 or not _is_planar(dataset):
        return value
    shape = (max(1, instance.number_of_frames), planes, instance.rows * instance.columns, depth)
    size = math.prod(shape)
    if size == 0 or size > len(value):
        return value
    return np.frombuffer(value, np.uint8, size).reshape(shape).transpose(0, 2, 1, 3).tobytes()


def _is_planar(dataset: Buffer) -> bool:
    for element in walk(dataset, encoding_of(EXPLICIT_LE)):
        if element.tag >= _PLANAR_CONFIGURATION:
            value = dataset[element.value_offset : element.value_end]
            return element.tag == _PLANAR_CONFIGURATION and bytes(value) == b"\x01\0"
    return False
