"""Retrieving instances (PS3.18 10.4) in every transfer syntax that may be asked for."""

from __future__ import annotations

import io
from pathlib import Path

import anyio
import httpx
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from archive.catalog import Scope
from dicomweb import wado
from dicomweb.waiting import PIECE_MAX_BYTES
from instances import syntax
from instances.part10 import split
from tests.datasets import ROOT, mr_dataset, part10
from tests.dicomweb.bodies import parts_of
from tests.dicomweb.library import Library

pytestmark = pytest.mark.anyio
ONE = f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.1.1.1"
SCOPE = Scope(principal="test", tenant="default")
UNKNOWN_SYNTAX = "1.2.840.10008.1.2.4.106"


def multipart(transfer_syntax: str = "") -> dict[str, str]:
    asked = f"; transfer-syntax={transfer_syntax}" if transfer_syntax else ""
    return {"Accept": f'multipart/related; type="application/dicom"{asked}'}


def read(file: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(file))


async def get(library: Library, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async with library.client() as client:
        return await client.get(path, headers=headers or {})


@pytest.mark.parametrize(
    ("stored", "asked", "given"),
    [
        (syntax.EXPLICIT_LE, "", syntax.EXPLICIT_LE),
        (syntax.EXPLICIT_LE, "*", syntax.EXPLICIT_LE),
        (syntax.EXPLICIT_LE, syntax.EXPLICIT_LE, syntax.EXPLICIT_LE),
        (syntax.EXPLICIT_LE, syntax.JPEG_2000_LOSSLESS, None),
        (syntax.EXPLICIT_LE, syntax.IMPLICIT_LE, None),
        (syntax.IMPLICIT_LE, "", syntax.EXPLICIT_LE),
        (syntax.IMPLICIT_LE, "*", syntax.EXPLICIT_LE),
        (syntax.IMPLICIT_LE, syntax.IMPLICIT_LE, syntax.IMPLICIT_LE),
        (syntax.EXPLICIT_BE, "", syntax.EXPLICIT_LE),
        (syntax.EXPLICIT_BE, "*", syntax.EXPLICIT_LE),
        (syntax.DEFLATED_LE, "", syntax.EXPLICIT_LE),
        (syntax.DEFLATED_LE, "*", syntax.DEFLATED_LE),
        (syntax.HTJ2K_LOSSLESS_RPCL, "", syntax.EXPLICIT_LE),
        (syntax.HTJ2K_LOSSLESS_RPCL, "*", syntax.HTJ2K_LOSSLESS_RPCL),
        (syntax.HTJ2K_LOSSLESS_RPCL, syntax.HTJ2K_LOSSLESS_RPCL, syntax.HTJ2K_LOSSLESS_RPCL),
        (syntax.HTJ2K_LOSSLESS_RPCL, syntax.JPEG_BASELINE, None),
        (syntax.RLE_LOSSLESS, "", syntax.EXPLICIT_LE),
        (syntax.RLE_LOSSLESS, "*", syntax.RLE_LOSSLESS),
        (syntax.RLE_LOSSLESS, syntax.EXPLICIT_LE, syntax.EXPLICIT_LE),
    ],
)
async def test_transfer_syntaxes(library: Library, stored: str, asked: str, given: str | None) -> None:
    original = mr_dataset(1)
    pixels = np.frombuffer(original.PixelData, "<u2")
    store(library, original, stored)
    assert [one.stored_transfer_syntax for one in library.records(f"{ROOT}.1")] == [stored]
    answer = await get(library, ONE, multipart(asked))
    if given is None:
        assert answer.status_code == 406
        assert answer.json()["error"].endswith(".")
        return
    [part] = parts_of(answer)
    assert part.content_type == "application/dicom"
    assert part.transfer_syntax == given
    instance = read(part.body)
    assert instance.file_meta.TransferSyntaxUID == given
    assert instance.SOPInstanceUID == f"{ROOT}.1.1.1"
    if given == syntax.EXPLICIT_LE:
        assert np.array_equal(np.frombuffer(instance.PixelData, "<u2"), pixels)
        assert instance.PatientName == original.PatientName


def store(library: Library, dataset: Dataset, transfer_syntax: str) -> None:
    if transfer_syntax == syntax.HTJ2K_LOSSLESS_RPCL:
        library.add(dataset, htj2k=True)
    elif transfer_syntax == syntax.RLE_LOSSLESS:
        compressed = read(part10(dataset))
        compressed.compress(transfer_syntax, generate_instance_uid=False)
        library.add(part10(compressed, transfer_syntax))
    else:
        library.add(file_in(dataset, transfer_syntax))


def file_in(dataset: Dataset, transfer_syntax: str) -> bytes:
    if transfer_syntax != syntax.EXPLICIT_BE:
        return part10(dataset, transfer_syntax)
    swapped = mr_dataset(1)
    swapped.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    return part10(swapped, transfer_syntax)


async def test_our_own_transcode_is_given_back_byte_for_byte(library: Library) -> None:
    sent = part10(mr_dataset(1, frames=3))
    library.add(sent, htj2k=True)
    [part] = parts_of(await get(library, ONE, multipart()))
    assert bytes(split(part.body)[1]) == bytes(split(sent)[1])


async def test_one_instance_may_come_alone(library: Library) -> None:
    sent = part10(mr_dataset(1))
    library.add(sent, mr_dataset(2))
    answer = await get(library, ONE, {"Accept": "application/dicom"})
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={syntax.EXPLICIT_LE}"
    assert bytes(split(answer.content)[1]) == bytes(split(sent)[1])
    assert int(answer.headers["content-length"]) == len(answer.content)
    both = await get(library, f"/dicom-web/studies/{ROOT}.1", {"Accept": "application/dicom"})
    assert both.status_code == 406


@pytest.mark.parametrize(
    "accept", ["*/*", "multipart/related", 'multipart/related; type="*/*"', "multipart/*, */*;q=0.1"]
)
async def test_whoever_accepts_anything_gets_multipart(library: Library, accept: str) -> None:
    library.add(mr_dataset(1))
    assert len(parts_of(await get(library, ONE, {"Accept": accept}))) == 1


@pytest.mark.parametrize("accept", ["image/jpeg", "text/html", 'multipart/related; type="application/pdf"'])
async def test_other_types_are_not_acceptable(library: Library, accept: str) -> None:
    library.add(mr_dataset(1))
    assert (await get(library, ONE, {"Accept": accept})).status_code == 406


async def test_the_best_acceptable_range_wins(library: Library) -> None:
    library.add(mr_dataset(1), htj2k=True)
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={syntax.JPEG_BASELINE}, ' + (
        'multipart/related; type="application/dicom"; transfer-syntax=*;q=0.8'
    )
    [part] = parts_of(await get(library, ONE, {"Accept": accept}))
    assert part.transfer_syntax == syntax.HTJ2K_LOSSLESS_RPCL


async def test_studies_and_series_come_whole_and_in_order(library: Library) -> None:
    library.add(*[mr_dataset(number, series=series) for series in (2, 1) for number in (3, 1, 2)])
    study = parts_of(await get(library, f"/dicom-web/studies/{ROOT}.1"))
    uids = [str(read(part.body).SOPInstanceUID).removeprefix(f"{ROOT}.1.") for part in study]
    assert uids == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    series = parts_of(await get(library, f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.2"))
    assert len(series) == 3


async def test_an_undecodable_instance_is_refused_alone_and_given_as_stored_among_others(library: Library) -> None:
    broken = mr_dataset(2)
    broken.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8no such stream\xff\xd9"])
    broken["PixelData"].is_undefined_length = True
    broken["PixelData"].VR = "OB"
    library.add(mr_dataset(1), part10(broken, syntax.JPEG_BASELINE))
    alone = await get(library, ONE.removesuffix(".1") + ".2")
    assert alone.status_code == 406
    assert "transfer-syntax=*" in alone.json()["error"]
    both = parts_of(await get(library, f"/dicom-web/studies/{ROOT}.1"))
    assert [part.transfer_syntax for part in both] == [syntax.EXPLICIT_LE, syntax.JPEG_BASELINE]
    [stored] = parts_of(await get(library, ONE.removesuffix(".1") + ".2", multipart("*")))
    assert stored.transfer_syntax == syntax.JPEG_BASELINE


async def test_what_cannot_be_reencoded_is_given_as_stored_to_who_takes_anything(library: Library) -> None:
    """It breaks off, so implicit VR cannot be made explicit to its end."""
    file = part10(mr_dataset(1), syntax.IMPLICIT_LE)[:-100]
    library.add(file)
    alone = await get(library, ONE, {"Accept": "application/dicom; transfer-syntax=*"})
    assert (alone.status_code, alone.headers["content-type"][-17:]) == (200, syntax.IMPLICIT_LE)
    assert bytes(split(alone.content)[1]) == bytes(split(file)[1])
    [part] = parts_of(await get(library, ONE, multipart("*")))
    assert (part.transfer_syntax, part.body) == (syntax.IMPLICIT_LE, alone.content)
    assert (await get(library, ONE, {"Accept": "application/dicom"})).status_code == 406


@pytest.mark.parametrize(
    "path",
    [
        f"/dicom-web/studies/{ROOT}.7",
        f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.9",
        f"/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.9",
        f"/dicom-web/studies/{ROOT}.1/metadata/x",
        "/dicom-web/studies/..%2F..%2Fetc",
        f"/dicom-web/studies/{ROOT}.7/metadata",
        f"/t/north/dicom-web/studies/{ROOT}.1",
        "/dicom-web/patients",
    ],
)
async def test_what_is_not_there_is_404(library: Library, path: str) -> None:
    library.add(mr_dataset(1))
    answer = await get(library, path)
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(".")


async def test_an_answer_streams_in_bounded_pieces(library: Library) -> None:
    library.add(mr_dataset(1, rows=1024, columns=1024, frames=2))
    sizes: list[int] = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sizes.append(len(body))

    await library.app()(request_scope(ONE), receive_nothing, send)  # type: ignore[arg-type]
    assert sum(sizes) > 4 << 20
    assert max(sizes) <= PIECE_MAX_BYTES


async def test_nothing_of_the_next_member_is_read_before_the_last_went_out(library: Library) -> None:
    library.add(*[mr_dataset(number, rows=32, columns=32) for number in range(1, 6)])
    reads_at_send: list[int] = []
    reads = 0
    real_read = library.store.read

    def counting(*arguments: object) -> bytes:
        nonlocal reads
        reads += 1
        return real_read(*arguments)  # type: ignore[arg-type]

    library.store.read = counting  # type: ignore[method-assign,assignment]

    async def send(message: dict[str, object]) -> None:
        reads_at_send.append(reads)

    await library.app()(request_scope(f"/dicom-web/studies/{ROOT}.1"), receive_nothing, send)  # type: ignore[arg-type]
    assert reads == 5
    assert reads_at_send[3] == 1


async def test_a_member_that_moved_is_looked_up_again(library: Library) -> None:
    library.add(mr_dataset(1))
    real_read, fails = library.store.read, [FileNotFoundError()]

    def moving(*arguments: object) -> bytes:
        if fails:
            raise fails.pop()
        return real_read(*arguments)  # type: ignore[arg-type]

    library.store.read = moving  # type: ignore[method-assign,assignment]
    assert len(parts_of(await get(library, ONE))) == 1


async def test_a_member_that_is_gone_breaks_the_answer_off_or_is_404(library: Library) -> None:
    library.add(mr_dataset(1))
    [readable] = library.reader.instances(SCOPE, f"{ROOT}.1")
    library.store.delete(readable.location.segment)
    frame = await get(library, f"{ONE}/frames/1")
    assert frame.status_code == 404


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEG-LL.dcm"]
)
async def test_real_files_come_back(library: Library, name: str) -> None:
    sent = Path(str(get_testdata_file(name))).read_bytes()
    library.add(sent)
    known = read(sent)
    path = f"/dicom-web/studies/{known.StudyInstanceUID}"
    [stored] = parts_of(await get(library, path, multipart("*")))
    assert bytes(split(stored.body)[1]) == bytes(split(sent)[1])
    [decoded] = parts_of(await get(library, path))
    assert read(decoded.body).file_meta.TransferSyntaxUID == syntax.EXPLICIT_LE
    if known.SamplesPerPixel == 1 and name != "JPEG-LL.dcm":  # pydicom alone has no decoder for that one
        assert np.array_equal(read(decoded.body).pixel_array, known.pixel_array)


def test_syntaxes_are_chosen_before_the_first_byte() -> None:
    assert wado.choose(UNKNOWN_SYNTAX, "") == syntax.EXPLICIT_LE
    assert wado.choose(UNKNOWN_SYNTAX, "*") == UNKNOWN_SYNTAX
    assert wado.choose(UNKNOWN_SYNTAX, syntax.JPEG_BASELINE) is None


def request_scope(path: str) -> dict[str, object]:
    """An HTTP request as a server hands it to an application (ASGI 3.0)."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8080"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
    }  # fmt: skip


async def receive_nothing() -> dict[str, object]:
    """A client that stays connected and says nothing."""
    await anyio.sleep_forever()
    raise AssertionError
