"""Frames and bulk data (PS3.18 10.4), in the representations of PS3.18 Tables 8.7.3."""

from __future__ import annotations

import struct

import httpx
import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from instances import syntax
from instances.htj2k import decode_frame
from tests.datasets import ROOT, mr_dataset, part10
from tests.dicomweb.bodies import parts_of
from tests.dicomweb.library import Library

pytestmark = pytest.mark.anyio
ONE = f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.1.1.1"
OCTETS = "application/octet-stream"
ANY_SYNTAX = {"Accept": f"multipart/related; type={OCTETS}; transfer-syntax=*"}


async def get(library: Library, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async with library.client() as client:
        return await client.get(path, headers=headers or {})


def native_frames(dataset: Dataset) -> list[bytes]:
    count = int(dataset.get("NumberOfFrames", 1))
    size = len(dataset.PixelData) // count
    return [dataset.PixelData[size * n : size * (n + 1)] for n in range(count)]


async def test_stored_codestreams_reach_the_viewer(library: Library) -> None:
    dataset = mr_dataset(1, frames=3)
    library.add(dataset, htj2k=True)
    answer = await get(library, f"{ONE}/frames/3,1", ANY_SYNTAX)
    parts = parts_of(answer)
    assert [part.transfer_syntax for part in parts] == [syntax.HTJ2K_LOSSLESS_RPCL] * 2
    decoded = [decode_frame(part.body).tobytes() for part in parts]
    assert decoded == [native_frames(dataset)[2], native_frames(dataset)[0]]
    [one] = parts_of(await get(library, f"{ONE}/frames/2", ANY_SYNTAX))
    assert decode_frame(one.body).tobytes() == native_frames(dataset)[1]


@pytest.mark.parametrize("stored", [syntax.EXPLICIT_LE, syntax.IMPLICIT_LE, syntax.DEFLATED_LE, "htj2k"])
async def test_without_a_syntax_frames_are_native(library: Library, stored: str) -> None:
    dataset = mr_dataset(1, frames=2)
    library.add(dataset, htj2k=stored == "htj2k", syntax="" if stored == "htj2k" else stored)
    parts = parts_of(await get(library, f"{ONE}/frames/1,2", {"Accept": f'multipart/related; type="{OCTETS}"'}))
    assert [part.body for part in parts] == native_frames(dataset)
    assert {part.transfer_syntax for part in parts} == {syntax.EXPLICIT_LE}


async def test_big_endian_frames_are_swapped(library: Library) -> None:
    dataset, swapped = mr_dataset(1), mr_dataset(1)
    swapped.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    library.add(part10(swapped, syntax.EXPLICIT_BE))
    [part] = parts_of(await get(library, f"{ONE}/frames/1", ANY_SYNTAX))
    assert (part.body, part.transfer_syntax) == (dataset.PixelData, syntax.EXPLICIT_LE)


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        ("*/*", 200, "multipart/related"),
        (OCTETS, 200, f"{OCTETS}; transfer-syntax={syntax.EXPLICIT_LE}"),
        (f"{OCTETS}; transfer-syntax=*", 200, f"{OCTETS}; transfer-syntax={syntax.HTJ2K_LOSSLESS_RPCL}"),
        ("image/jphc", 200, f"image/jphc; transfer-syntax={syntax.HTJ2K_LOSSLESS_RPCL}"),
        ('multipart/related; type="image/jphc"', 200, "multipart/related"),
        ("image/*", 200, f"image/jphc; transfer-syntax={syntax.HTJ2K_LOSSLESS_RPCL}"),
        (f"{OCTETS}; transfer-syntax={syntax.RLE_LOSSLESS}", 406, "application/json"),
        ("image/jpeg", 406, "application/json"),
        ('multipart/related; type="image/jls"', 406, "application/json"),
        ("application/dicom", 406, "application/json"),
    ],
)
async def test_representations_of_one_frame(library: Library, accept: str, status: int, content_type: str) -> None:
    library.add(mr_dataset(1), htj2k=True)
    answer = await get(library, f"{ONE}/frames/1", {"Accept": accept})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith(content_type)


async def test_several_frames_need_multipart(library: Library) -> None:
    library.add(mr_dataset(1, frames=2))
    assert (await get(library, f"{ONE}/frames/1,2", {"Accept": OCTETS})).status_code == 406


@pytest.mark.parametrize(
    ("frames", "status"), [("0", 400), ("1,", 400), ("a", 400), ("-1", 400), ("3", 404), ("1,3", 404), ("2", 200)]
)
async def test_frame_lists(library: Library, frames: str, status: int) -> None:
    library.add(mr_dataset(1, frames=2))
    assert (await get(library, f"{ONE}/frames/{frames}")).status_code == status


async def test_an_instance_without_pixels_has_no_frames(library: Library) -> None:
    report = mr_dataset(1)
    del report.PixelData
    library.add(report)
    assert (await get(library, f"{ONE}/frames/1")).status_code == 404
    assert (await get(library, f"{ONE}/bulkdata/7FE00010")).status_code == 404


def compressed(*fragments: bytes, frames: int, offsets: bool) -> bytes:
    dataset = mr_dataset(1, frames=frames)
    dataset.PixelData = encapsulate(list(fragments), fragments_per_frame=2, has_bot=offsets)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return part10(dataset, syntax.JPEG_LS_LOSSLESS)


@pytest.mark.parametrize(("frames", "offsets"), [(1, False), (2, True)])
async def test_frames_of_several_fragments_are_joined(library: Library, frames: int, offsets: bool) -> None:
    pixels = [np.frombuffer(one, "<u2").reshape(64, 64) for one in native_frames(mr_dataset(1, frames=frames))]
    streams = [imagecodecs.jpegls_encode(one) for one in pixels]
    library.add(compressed(*[stream + b"\0" * (len(stream) % 2) for stream in streams], frames=frames, offsets=offsets))
    [part] = parts_of(await get(library, f"{ONE}/frames/{frames}", ANY_SYNTAX))
    assert part.transfer_syntax == syntax.JPEG_LS_LOSSLESS
    assert part.body.startswith(streams[-1])
    [native] = parts_of(await get(library, f"{ONE}/frames/{frames}"))
    assert native.body == pixels[-1].tobytes()


async def test_an_offset_table_that_leaves_a_frame_nothing_is_not_believed(library: Library) -> None:
    streams = [imagecodecs.jpegls_encode(np.full((64, 64), value, "<u2")) for value in (1, 2)]
    streams = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    stored = compressed(*streams, frames=2, offsets=True)
    table = stored.index(struct.pack("<HHLL", 0xFFFE, 0xE000, 8, 0)) + 8
    library.add(stored[:table] + bytes(8) + stored[table + 8 :])
    assert (await get(library, f"{ONE}/frames/1", ANY_SYNTAX)).status_code == 406


async def test_frames_of_single_bits_begin_at_a_byte(library: Library) -> None:
    bits = np.random.default_rng(7).integers(0, 2, (3, 5, 5), dtype=np.uint8)
    mask = mr_dataset(1, frames=3, BitsAllocated=1, BitsStored=1, HighBit=0, Rows=5, Columns=5)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    mask.PixelData = packed + b"\0" * (len(packed) % 2)
    library.add(mask)
    parts = parts_of(await get(library, f"{ONE}/frames/1,2,3"))
    for part, frame in zip(parts, bits, strict=True):
        unpacked = np.unpackbits(np.frombuffer(part.body, np.uint8), bitorder="little")[:25]
        assert np.array_equal(unpacked, frame.ravel())


async def test_bulk_data_is_where_metadata_says(library: Library) -> None:
    dataset = mr_dataset(1)
    dataset.EncapsulatedDocument = bytes(range(256)) * 8
    item = Dataset()
    item.add_new(0x00420011, "OB", b"nested" * 400)
    dataset.ReferencedImageSequence = Sequence([Dataset(), item])
    library.add(dataset)
    [head] = (await get(library, f"{ONE}/metadata")).json()
    document = head["00420011"]["BulkDataURI"]
    nested = head["00081140"]["Value"][1]["00420011"]["BulkDataURI"]
    pixels = head["7FE00010"]["BulkDataURI"]
    for uri, content in (
        (document, dataset.EncapsulatedDocument),
        (nested, b"nested" * 400),
        (pixels, dataset.PixelData),
    ):
        assert (await get(library, uri, {"Accept": OCTETS})).content == content
        [part] = parts_of(await get(library, uri, {"Accept": f'multipart/related; type="{OCTETS}"'}))
        assert part.body == content


@pytest.mark.parametrize(
    ("path", "status"), [("00420012", 404), ("00081140/0/00420011", 404), ("nonsense", 400), ("00420011/../x", 400)]
)
async def test_bulk_data_that_is_not_there(library: Library, path: str, status: int) -> None:
    library.add(mr_dataset(1))
    answer = await get(library, f"{ONE}/bulkdata/{path}")
    assert answer.status_code == status


@pytest.mark.parametrize("stored", [syntax.EXPLICIT_LE, syntax.IMPLICIT_LE, syntax.DEFLATED_LE, "htj2k"])
async def test_pixel_data_as_bulk_is_native(library: Library, stored: str) -> None:
    dataset = mr_dataset(1, bits=8, rows=33, columns=31)
    library.add(dataset, htj2k=stored == "htj2k", syntax="" if stored == "htj2k" else stored)
    answer = await get(library, f"{ONE}/bulkdata/7FE00010")
    value = answer.content
    assert value[: 33 * 31] == dataset.PixelData[: 33 * 31]
    assert len(value) % 2 == 0
