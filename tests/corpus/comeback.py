"""Whether what is retrieved is what was sent: elements, pixel bytes in the same syntax, samples across syntaxes."""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import Any

from pydicom import Dataset, dcmread

from instances.codec import DecodeFailed
from instances.decode import IsolatedDecoder
from instances.description import describe
from instances.elements import Buffer
from instances.equality import equivalent
from instances.part10 import file_header
from instances.syntax import LOSSLESS, NATIVE
from runtime.errors import Unfileable

Encoded = tuple[Buffer, str]
"""A data set without group 2, and its transfer syntax."""
EQUAL = "equal"
#: Attributes that change with the decoding of compressed colours (PS3.18 8.7.3.5.2).
_OF_SAMPLES = ("PixelData", "PhotometricInterpretation", "PlanarConfiguration")


class Comparison:
    """Compares, once for each pair of contents."""

    def __init__(self, decoder: IsolatedDecoder) -> None:
        self._decoder = decoder
        self._known: dict[tuple[str, ...], str] = {}

    def verdict(self, sent: Encoded, returned: Encoded) -> str:
        """EQUAL, or in which way they differ."""
        key = tuple(hashlib.sha256(dataset).hexdigest() + syntax for dataset, syntax in (sent, returned))
        if key not in self._known:
            self._known[key] = self._verdict(sent, returned)
        return self._known[key]

    def _verdict(self, sent: Encoded, returned: Encoded) -> str:
        if sent[1] == returned[1]:
            if _pixel_value(sent) != _pixel_value(returned):
                return "pixel bytes differ"
        elif sent[1] not in LOSSLESS | NATIVE or returned[1] not in LOSSLESS | NATIVE:
            return self._lossy_verdict(sent, returned)
        elif (samples := self._samples_verdict(sent, returned)) != EQUAL:
            return samples
        return EQUAL if equivalent(*sent, *returned, decode=self._decoder.samples) else "elements differ"

    def _lossy_verdict(self, sent: Encoded, returned: Encoded) -> str:
        """A lossy stream that was decoded: everything but the samples is equal, and they are those of the stream."""
        if _without_samples(sent) != _without_samples(returned):
            return "elements differ"
        return self._samples_verdict(sent, returned)

    def _samples_verdict(self, sent: Encoded, returned: Encoded) -> str:
        try:
            a, b = self._decoder.samples(*sent), self._decoder.samples(*returned)
        except (DecodeFailed, Unfileable):
            return EQUAL  # nobody can decode it, so nobody is told other samples
        return EQUAL if a.rstrip(b"\0") == b.rstrip(b"\0") else "samples differ"


def _pixel_value(encoded: Encoded) -> bytes:
    """The value of Pixel Data as it stands; without it, nothing. A byte of padding does not count."""
    try:
        pixels = describe(*encoded).pixels
    except Unfileable:
        return b""
    if pixels is None or pixels.encapsulated:
        return b""  # fragments are compared with the elements
    value = bytes(memoryview(encoded[0])[pixels.value_offset : pixels.value_offset + pixels.value_size_bytes])
    return value[:-1] if len(value) % 2 == 0 and value.endswith(b"\0") else value


def _without_samples(encoded: Encoded) -> dict[int, Any]:
    """Every element that is not about samples, as pydicom reads it."""
    dataset, syntax = encoded
    header = file_header(sop_class_uid="1.2.3", sop_instance_uid="1.2.3", transfer_syntax=syntax)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about the file is not asked here
        read: Dataset = dcmread(io.BytesIO(header + bytes(dataset)))
        return {
            int(element.tag): element.value
            for element in read
            if element.keyword not in _OF_SAMPLES and element.tag.element and element.tag != 0xFFFCFFFC
        }
