"""One frame as HTJ2K lossless RPCL (PS3.5 10.18, ISO/IEC 15444-15), with the precision the samples really have.

The encoder (OpenJPH) takes its precision from the array's type. A viewer should meet Bits Stored instead, so samples
are coded as signed ones around zero, which changes no coefficient, and the component's depth and sign are then written
into the SIZ marker: a decoder adds the level shift that belongs to them (ISO/IEC 15444-1 G.1).
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from instances.elements import Buffer

Samples = NDArray[Any]

#: PS3.5 10.18: the base resolution is at most this wide or high.
BASE_SIZE_MAX: Final = 64

_SOC_SIZ = b"\xff\x4f\xff\x51"
#: Where Ssiz of the first component lies: SOC, SIZ marker, Lsiz, Rsiz, eight sizes, Csiz.
_SSIZ_OFFSET = 42
_SIGNED = 0x80
_EOC = b"\xff\xd9"


class CodecError(Exception):
    """The codec refused the frame. Keep it as it is."""


def encode_frame(samples: Samples, bits_stored: int | None = None) -> bytes:
    """The codestream of `samples` (rows x columns, signed or unsigned, 8 or 16 bits).

    Its precision is `bits_stored` where every sample fits it, else the width of the array's type. Releases the GIL.

    Raises:
        CodecError: the encoder failed, or wrote no codestream as it should.
    """
    width = samples.dtype.itemsize * 8
    signed = samples.dtype.kind == "i"
    precision = width if bits_stored is None or not _fits(samples, bits_stored, signed) else bits_stored
    centred = samples if signed else _centred(samples, precision)
    try:
        codestream = bytearray(
            imagecodecs.htj2k_encode(centred, reversible=True, tlm=True, resolutions=_decompositions(samples))
        )
    except Exception as error:  # the codec's own error types are not part of its interface
        raise CodecError("HTJ2K encoding failed") from error
    if not codestream.startswith(_SOC_SIZ) or codestream[_SSIZ_OFFSET] != width - 1 | _SIGNED:
        raise CodecError("the encoder wrote another header than expected")
    codestream[_SSIZ_OFFSET] = precision - 1 | (_SIGNED if signed else 0)
    return bytes(codestream)


def decode_frame(codestream: Buffer) -> Samples:
    """The samples of a codestream, in the narrowest type of its precision and sign. Releases the GIL.

    Raises:
        CodecError: it cannot be decoded, or not to its end.
    """
    if not bytes(codestream[-4:]).rstrip(b"\0").endswith(_EOC):  # the decoder takes what is missing for zeros
        raise CodecError("the codestream has no end")
    _listen()
    _swallowed.error = False
    try:
        samples = np.asarray(imagecodecs.htj2k_decode(codestream))  # type: ignore[arg-type]  # any buffer is taken
    except Exception as error:  # as above
        raise CodecError("HTJ2K decoding failed") from error
    if _swallowed.error:
        raise CodecError("HTJ2K decoding broke off")
    return samples


class _Swallowed(threading.local):
    """Whether the codec failed while its binding copied samples in this thread.

    The binding cannot raise there: it hands the error to `sys.unraisablehook` and gives a picture half of zeros.
    """

    error = False


_swallowed = _Swallowed()
_other_hook = sys.unraisablehook


def _listen() -> None:
    """Hear what the binding cannot raise; whoever listened before hears the rest."""
    global _other_hook
    if sys.unraisablehook is not _notice:
        _other_hook, sys.unraisablehook = sys.unraisablehook, _notice


def _notice(unraisable: sys.UnraisableHookArgs) -> None:
    if isinstance(unraisable.object, str) and unraisable.object.startswith("imagecodecs._htj2k."):
        _swallowed.error = True
    else:
        _other_hook(unraisable)


def _fits(samples: Samples, bits_stored: int, signed: bool) -> bool:
    if not 1 <= bits_stored <= samples.dtype.itemsize * 8:
        return False
    if signed:
        half = 1 << (bits_stored - 1)
        return bool(samples.min() >= -half and samples.max() < half)
    return bool(samples.max() < 1 << bits_stored)


def _centred(samples: Samples, precision: int) -> Samples:
    """Unsigned samples minus half their range, as signed ones of the same width."""
    half = samples.dtype.type(1 << (precision - 1))
    centred: Samples = np.subtract(samples, half).view(samples.dtype.str.replace("u", "i"))
    return centred


def _decompositions(samples: Samples) -> int:
    """The fewest decompositions (at least one) after which both sides are within `BASE_SIZE_MAX`."""
    longest = int(max(samples.shape))
    return max(1, (longest - 1).bit_length() - (BASE_SIZE_MAX.bit_length() - 1))
