"""One compressed frame to native samples. Runs on strangers' bytes, so only ever in a child process (`decode`).

Samples come out as a viewer of native data expects them: little endian, colours by pixel, YCbCr of JPEG turned to RGB,
in containers of Bits Allocated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from instances import htj2k
from instances.syntax import (
    DEFLATED_FRAME,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    RLE_LOSSLESS,
    TURNED_TO_RGB,
)
from schemas.record import InstanceAttributes

Samples = NDArray[Any]
_Decoder = Callable[[bytes, InstanceAttributes], Samples]


class DecodeFailed(Exception):
    """The stream cannot be decoded. Serve the instance as it is stored."""


def decode_native(codestream: bytes, transfer_syntax: str, instance: InstanceAttributes) -> bytes:
    """The native samples of one frame.

    Raises:
        DecodeFailed: no decoder for the syntax, a broken stream, or one that does not fit the attributes.
    """
    decoder = _DECODERS.get(transfer_syntax)
    if decoder is None:
        raise DecodeFailed("there is no decoder for the transfer syntax")
    if instance.bits_allocated not in (8, 16, 32):
        raise DecodeFailed("samples of this size are not decoded")
    try:
        samples = decoder(codestream, instance)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # a dozen codecs, each with its own errors
        raise DecodeFailed(f"the codec failed: {type(error).__name__}") from None
    expected = instance.rows * instance.columns * instance.samples_per_pixel
    if samples.size != expected or samples.shape[:2] != (instance.rows, instance.columns):
        raise DecodeFailed("the stream holds another picture than the attributes say")
    return _in_container(samples, instance).tobytes()


def native_photometric_interpretation(transfer_syntax: str, instance: InstanceAttributes) -> str:
    """Photometric Interpretation of what `decode_native` gives."""
    declared = instance.photometric_interpretation
    if instance.samples_per_pixel != 3:
        return declared
    if declared.startswith("YBR") and transfer_syntax in TURNED_TO_RGB:
        return "RGB"
    return declared


def _in_container(samples: Samples, instance: InstanceAttributes) -> Samples:
    width = instance.bits_allocated
    signed = instance.pixel_representation == 1
    out = samples.astype(f"<{'i' if signed else 'u'}{width // 8}")
    if signed and samples.dtype.kind == "u" and 0 < instance.bits_stored < width:
        shift = width - instance.bits_stored  # the stream forgot the sign
        out = (out << shift) >> shift
    return out


def _jpeg(codestream: bytes, instance: InstanceAttributes) -> Samples:
    if instance.samples_per_pixel != 3:
        return _array(imagecodecs.jpeg_decode(codestream))
    if _is_rgb(codestream, instance):
        return _array(imagecodecs.jpeg8_decode(codestream, colorspace="RGB", outcolorspace="RGB"))
    return _array(imagecodecs.jpeg8_decode(codestream, colorspace="YCBCR", outcolorspace="RGB"))


def _is_rgb(codestream: bytes, instance: InstanceAttributes) -> bool:
    """Whether the components are red, green and blue: the Adobe marker (APP14) knows, else the data set says."""
    at = codestream.find(b"\xff\xee\x00\x0eAdobe", 0, 4096)
    if at >= 0 and at + 15 < len(codestream):
        return codestream[at + 15] == 0
    return instance.photometric_interpretation == "RGB"


def _jpeg_lossless(codestream: bytes, instance: InstanceAttributes) -> Samples:
    decode = imagecodecs.ljpeg_decode if instance.samples_per_pixel == 1 else imagecodecs.jpegsof3_decode
    return _array(decode(codestream))


def _jpeg_ls(codestream: bytes, instance: InstanceAttributes) -> Samples:
    return _array(imagecodecs.jpegls_decode(codestream))


def _jpeg_2000(codestream: bytes, instance: InstanceAttributes) -> Samples:
    return _array(imagecodecs.jpeg2k_decode(codestream))


def _htj2k(codestream: bytes, instance: InstanceAttributes) -> Samples:
    return htj2k.decode_frame(codestream)


def _rle(codestream: bytes, instance: InstanceAttributes) -> Samples:
    from rle.rle import decode_frame  # a compiled plug-in that only RLE needs

    count = instance.rows * instance.columns
    planes = np.frombuffer(
        decode_frame(codestream, count, instance.bits_allocated, "<"), f"<u{instance.bits_allocated // 8}"
    )
    return planes.reshape(instance.samples_per_pixel, instance.rows, instance.columns).transpose(1, 2, 0)


def _deflated(codestream: bytes, instance: InstanceAttributes) -> Samples:
    size = instance.rows * instance.columns * instance.samples_per_pixel * instance.bits_allocated // 8
    content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(codestream, size + 1)[:size]
    shape = (instance.rows, instance.columns, instance.samples_per_pixel)
    return np.frombuffer(content, f"<u{instance.bits_allocated // 8}").reshape(shape)


def _array(decoded: object) -> Samples:
    return np.asarray(decoded)


_DECODERS: Final[dict[str, _Decoder]] = {
    JPEG_BASELINE: _jpeg,
    JPEG_EXTENDED: _jpeg,
    JPEG_LOSSLESS: _jpeg_lossless,
    JPEG_LOSSLESS_SV1: _jpeg_lossless,
    JPEG_LS_LOSSLESS: _jpeg_ls,
    JPEG_LS_NEAR_LOSSLESS: _jpeg_ls,
    JPEG_2000_LOSSLESS: _jpeg_2000,
    JPEG_2000: _jpeg_2000,
    HTJ2K_LOSSLESS: _htj2k,
    HTJ2K_LOSSLESS_RPCL: _htj2k,
    HTJ2K: _htj2k,
    RLE_LOSSLESS: _rle,
    DEFLATED_FRAME: _deflated,
}
DECODABLE: Final = frozenset(_DECODERS)
