import struct

import pytest

from instances.description import describe
from instances.pixels import PixelLayout
from instances.syntax import EXPLICIT_LE, RLE_LOSSLESS
from schemas.reasons import WarningCode
from tests.datasets import dataset_bytes, mr_dataset
from tests.instances import corpus, hostile


def layout(name: str) -> tuple[PixelLayout, tuple[WarningCode, ...]]:
    real = corpus.read(corpus.path_of(name))
    described = describe(real.dataset, real.meta.transfer_syntax)
    assert described.pixels is not None
    return described.pixels, described.warnings


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("SC_ybr_full_422_uncompressed.dcm", 1, 20000),  # two bytes a pixel
        ("liver.dcm", 3, 32768),  # one bit a pixel
        ("SC_rgb_small_odd.dcm", 1, 27),  # padded to 28
        ("rtdose.dcm", 15, 400),  # 32 bits, implicit
        ("SC_rgb_32bit_2frame.dcm", 2, 120000),
        ("OBXXXX1A_expb_2frame.dcm", 2, 480000),
    ],
)
def test_native_frames_follow_from_the_attributes(name: str, count: int, size: int) -> None:
    pixels, warnings = layout(name)
    assert [frame_size for _, frame_size in pixels.frames] == [size] * count
    assert warnings == ()


def test_frames_of_single_bits_that_do_not_end_on_a_byte_are_not_listed() -> None:
    dataset = mr_dataset(rows=3, columns=3, bits=8, BitsStored=1, HighBit=0, NumberOfFrames=5)
    dataset.BitsAllocated = 1
    dataset.PixelData = bytes(6)  # 45 bits
    described = describe(dataset_bytes(dataset), EXPLICIT_LE)
    assert described.pixels is not None
    assert described.pixels.frames == ()
    assert described.warnings == ()


@pytest.mark.parametrize(("tag", "vr", "depth"), [(0x7FE00008, "OF", 4), (0x7FE00009, "OD", 8)])
def test_float_pixels_are_recognised(tag: int, vr: str, depth: int) -> None:
    dataset = mr_dataset(rows=4, columns=4)
    dataset.BitsAllocated = depth * 8
    del dataset.PixelData
    header = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, 16 * depth)
    described = describe(dataset_bytes(dataset) + header + bytes(16 * depth), EXPLICIT_LE)
    assert described.pixels is not None
    assert (described.pixels.vr, described.pixels.value_size_bytes) == (vr, 16 * depth)
    assert [size for _, size in described.pixels.frames] == [16 * depth]
    assert described.warnings == ()


def test_trailing_padding_beyond_a_byte_is_told() -> None:
    pixels, warnings = layout("MR_small_padded.dcm")
    assert warnings == (WarningCode.PIXEL_LENGTH_MISMATCH,)
    assert pixels.frames == ()


@pytest.mark.parametrize(
    ("name", "frames", "fragments"),
    [("emri_small_RLE.dcm", 10, 10), ("MR_small_RLE.dcm", 1, 1), ("US1_J2KR.dcm", 0, 3)],
)
def test_encapsulated_frames_are_listed_where_one_fragment_is_one_frame(name: str, frames: int, fragments: int) -> None:
    pixels, warnings = layout(name)
    assert (len(pixels.frames), len(pixels.fragments)) == (frames, fragments)
    assert pixels.encapsulated
    assert warnings == ()


def encapsulated(table: list[int], fragments: list[bytes]) -> tuple[PixelLayout | None, tuple[WarningCode, ...]]:
    dataset = mr_dataset(rows=4, columns=4, NumberOfFrames=2)
    del dataset.PixelData
    items = [struct.pack(f"<{len(table)}L", *table), *fragments]
    value = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    element = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + value + b"\xfe\xff\xdd\xe0\0\0\0\0"
    raw = dataset_bytes(dataset) + element + hostile.element(0xFFFCFFFC, "OB", b"")
    described = describe(raw, RLE_LOSSLESS)
    if described.pixels is not None:
        assert described.pixels.end_offset == len(raw) - 12
        for (offset, size), fragment in zip(described.pixels.fragments, fragments, strict=True):
            assert raw[offset : offset + size] == fragment
    return described.pixels, described.warnings


@pytest.mark.parametrize("table", [[], [0, 12]])
def test_an_offset_table_may_be_empty_or_right(table: list[int]) -> None:
    pixels, warnings = encapsulated(table, [b"abcd", b"efghij"])
    assert pixels is not None
    assert len(pixels.frames) == 2
    assert warnings == ()


@pytest.mark.parametrize("table", [[0, 10], [0], [0, 12, 26], [4, 12]])
def test_a_wrong_offset_table_is_told(table: list[int]) -> None:
    _, warnings = encapsulated(table, [b"abcd", b"efghij"])
    assert warnings == (WarningCode.ENCAPSULATION_BROKEN,)


def test_fewer_fragments_than_frames_are_told() -> None:
    pixels, warnings = encapsulated([], [b"abcd"])
    assert pixels is not None
    assert pixels.frames == ()
    assert warnings == (WarningCode.ENCAPSULATION_BROKEN,)


def test_more_fragments_than_the_limit_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.pixels.FRAMES_MAX", 2)
    dataset = mr_dataset(rows=4, columns=4, NumberOfFrames=3)
    del dataset.PixelData
    items = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in (b"", b"ab", b"cd", b"ef"))
    raw = dataset_bytes(dataset) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    pixels = describe(raw, RLE_LOSSLESS).pixels
    assert pixels is not None
    assert (pixels.fragments, pixels.frames, pixels.end_offset) == ((), (), len(raw))
