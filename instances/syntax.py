"""Transfer syntaxes: how each one writes a data set (PS3.5 10, PS3.6 Table A-1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

IMPLICIT_LE: Final = "1.2.840.10008.1.2"
EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
DEFLATED_LE: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE: Final = "1.2.840.10008.1.2.2"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS: Final = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS: Final = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL: Final = "1.2.840.10008.1.2.4.202"
HTJ2K: Final = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
DEFLATED_FRAME: Final = "1.2.840.10008.1.2.8.1"

#: Syntaxes whose Pixel Data is written sample by sample.
NATIVE: Final = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})
#: Compressed syntaxes that give back exactly the samples they were made from.
LOSSLESS: Final = frozenset(
    {
        JPEG_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LS_LOSSLESS,
        JPEG_2000_LOSSLESS,
        HTJ2K_LOSSLESS,
        HTJ2K_LOSSLESS_RPCL,
        RLE_LOSSLESS,
        DEFLATED_FRAME,
    }
)

#: JPEG decoders turn YCbCr to RGB; JPEG 2000 undoes its component transform (PS3.3 C.7.6.3.1.2).
TURNED_TO_RGB: Final = frozenset(
    {JPEG_BASELINE, JPEG_EXTENDED, JPEG_2000_LOSSLESS, JPEG_2000, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the elements of a data set are written."""

    explicit: bool = True
    little_endian: bool = True
    #: The whole data set is a raw deflate stream (PS3.5 A.5).
    deflated: bool = False

    def as_implicit(self) -> Encoding:
        """The same byte order without value representations."""
        return replace(self, explicit=False)

    def as_explicit(self) -> Encoding:
        """The same byte order with value representations."""
        return replace(self, explicit=True)


_ENCODINGS = {
    IMPLICIT_LE: Encoding(explicit=False),
    DEFLATED_LE: Encoding(deflated=True),
    EXPLICIT_BE: Encoding(little_endian=False),
}
_EXPLICIT_LE = Encoding()


def encoding_of(transfer_syntax: str) -> Encoding:
    """How `transfer_syntax` writes elements; every syntax not named by the standard otherwise is Explicit VR LE."""
    return _ENCODINGS.get(transfer_syntax, _EXPLICIT_LE)
