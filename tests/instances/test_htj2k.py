"""The codestream itself, marker by marker (ISO/IEC 15444-1 Annex A, 15444-15; PS3.5 10.18)."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from instances.htj2k import CodecError, decode_frame, encode_frame

SOC, CAP, SIZ, COD, TLM, SOT, SOD, EOC = 0xFF4F, 0xFF50, 0xFF51, 0xFF52, 0xFF55, 0xFF90, 0xFF93, 0xFFD9
RPCL = 2
REVERSIBLE_5_3 = 1
HIGH_THROUGHPUT_BLOCKS = 0x40


def main_header(codestream: bytes) -> dict[int, bytes]:
    """The segments of the main header by marker."""
    assert int.from_bytes(codestream[:2]) == SOC
    segments: dict[int, bytes] = {}
    pos = 2
    while (marker := int.from_bytes(codestream[pos : pos + 2])) != SOT:
        size = int.from_bytes(codestream[pos + 2 : pos + 4])
        segments[marker] = codestream[pos + 4 : pos + 2 + size]
        pos += 2 + size
    segments[SOT] = codestream[pos + 4 : pos + 12]
    segments[EOC] = codestream[pos:]
    return segments


def picture(rows: int, columns: int, bits: int = 12, dtype: str = "<u2") -> NDArray[Any]:
    rng = np.random.default_rng([rows, columns, bits])
    return rng.integers(0, 1 << bits, (rows, columns)).astype(dtype)


@pytest.mark.parametrize(
    ("rows", "columns", "levels"), [(64, 64, 1), (65, 3, 1), (512, 512, 3), (513, 200, 4), (1, 1, 1), (4, 3000, 6)]
)
def test_the_codestream_conforms(rows: int, columns: int, levels: int) -> None:
    header = main_header(encode_frame(picture(rows, columns), 12))
    width, height = int.from_bytes(header[SIZ][2:6]), int.from_bytes(header[SIZ][6:10])
    assert (height, width) == (rows, columns)
    assert int.from_bytes(header[SIZ][34:36]) == 1  # one component
    assert int.from_bytes(header[CAP][:4]) & 1 << (32 - 15)  # Pcap15: Part 15
    assert header[COD][1] == RPCL
    assert header[COD][5] == levels
    assert header[COD][8] == HIGH_THROUGHPUT_BLOCKS
    assert header[COD][9] == REVERSIBLE_5_3
    assert max(-(-rows // 2**levels), -(-columns // 2**levels)) <= 64


def test_the_tile_part_lengths_lead_to_the_end() -> None:
    codestream = encode_frame(picture(300, 200), 12)
    header = main_header(codestream)
    assert TLM in header
    entries = header[TLM][2:]
    size = 4 + (header[TLM][1] >> 4 & 3)  # Stlm: size of the tile index, then four bytes of length
    lengths = [int.from_bytes(entries[at + size - 4 : at + size]) for at in range(0, len(entries), size)]
    first_tile_part = len(codestream) - len(header[EOC])
    assert first_tile_part + sum(lengths) == len(codestream) - 2
    assert int.from_bytes(codestream[-2:]) == EOC


@pytest.mark.parametrize(
    ("dtype", "bits_stored", "low", "high", "precision", "signed"),
    [
        ("<u2", 12, 0, 4095, 12, False),
        ("<u2", 16, 0, 65535, 16, False),
        ("<u2", 12, 0, 4096, 16, False),  # overlay or unused high bits are set: the container's width
        ("<i2", 12, -2048, 2047, 12, True),
        ("<i2", 12, -2049, 2047, 16, True),
        ("<i2", 12, -2048, 2048, 16, True),
        ("|u1", 8, 0, 255, 8, False),
        ("|u1", 6, 0, 63, 6, False),
        ("|i1", 8, -128, 127, 8, True),
    ],
)
def test_depth_and_sign_are_those_of_the_samples(
    dtype: str, bits_stored: int, low: int, high: int, precision: int, signed: bool
) -> None:
    samples = np.random.default_rng(7).integers(low, high + 1, (70, 90)).astype(dtype)
    samples[0, :2] = low, high
    codestream = encode_frame(samples, bits_stored)
    ssiz = main_header(codestream)[SIZ][36]
    assert (ssiz & 0x7F) + 1 == precision
    assert bool(ssiz & 0x80) is signed
    assert np.array_equal(decode_frame(codestream), samples)
    other_decoder = imagecodecs.jpeg2k_decode(codestream)  # OpenJPEG, written by others than OpenJPH
    assert np.array_equal(other_decoder, samples)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_picture_comes_back(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["<u2", "<i2", "|u1", "|i1"]))
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
    samples = data.draw(arrays.arrays(np.dtype(dtype), shape))
    bits_stored = data.draw(st.one_of(st.none(), st.integers(0, 20)))
    decoded = decode_frame(encode_frame(samples, bits_stored))
    assert np.array_equal(decoded, samples)


@pytest.mark.parametrize("damage", [b"", b"\xff\x4f\xff\x51", b"x" * 100])
def test_what_is_no_codestream_is_an_error_of_ours(damage: bytes) -> None:
    with pytest.raises(CodecError):
        decode_frame(damage)


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_codestream_that_was_cut_is_an_error(part: float) -> None:
    codestream = encode_frame(picture(200, 200))
    with pytest.raises(CodecError):
        decode_frame(codestream[: int(part * len(codestream))])


def test_an_error_that_the_binding_cannot_raise_is_an_error_all_the_same() -> None:
    codestream = bytearray(encode_frame(picture(200, 200)))
    caught = 0
    for at in range(300, len(codestream) - 2, len(codestream) // 40):
        damaged = codestream[:at] + bytes([codestream[at] ^ 0xFF]) + codestream[at + 1 :]
        try:
            decode_frame(bytes(damaged))
        except CodecError as error:
            caught += str(error) == "HTJ2K decoding broke off"
    assert caught
    assert np.array_equal(decode_frame(bytes(codestream)), picture(200, 200))


def test_padding_behind_the_end_is_none_of_the_picture() -> None:
    assert np.array_equal(decode_frame(encode_frame(picture(20, 20)) + b"\0"), picture(20, 20))
