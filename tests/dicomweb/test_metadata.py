"""Metadata in the DICOM JSON Model, with pydicom's own conversion as the oracle."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomweb.metadata import INLINE_MAX_BYTES, dataset_json, encoded, find_bulk
from instances import syntax
from instances.part10 import split
from tests.datasets import ROOT, mr_dataset, part10
from tests.dicomweb.library import BASE, Library

NAMES = [
    "CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "rtplan.dcm", "rtdose.dcm", "reportsi.dcm",
    "image_dfl.dcm", "chrX2.dcm", "chrH31.dcm", "chrKoreanMulti.dcm", "nested_priv_SQ.dcm", "priv_SQ.dcm",
    "UN_sequence.dcm", "waveform_ecg.dcm", "JPEG2000.dcm", "liver_1frame.dcm", "693_UNCR.dcm", "emri_small.dcm",
]  # fmt: skip
#: The character set is UTF-8 in JSON, bulk pixel data and trailing padding are no metadata.
NOT_COMPARED = {"00080005", "7FE00010", "FFFCFFFC"}


def uri(path: str) -> str:
    return f"bulk:{path}"


@pytest.mark.parametrize("name", [name for name in NAMES if get_testdata_file(name, download=False)])
def test_real_files_read_as_pydicom_reads_them(name: str) -> None:
    file = Path(str(get_testdata_file(name, download=False))).read_bytes()
    meta, dataset = split(file)
    ours = json.loads(encoded(dataset_json(dataset, meta.transfer_syntax, uri)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = pydicom.dcmread(io.BytesIO(file), force=True)
        theirs = known.to_json_dict(INLINE_MAX_BYTES + 1, lambda element: uri(f"{element.tag:08X}"))
    compare(ours, theirs)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    expected = {tag for tag in theirs if tag[4:] != "0000"} - NOT_COMPARED
    assert set(ours) - NOT_COMPARED == expected
    for tag in expected:
        mine, other = ours[tag], theirs[tag]
        if "SQ" in (mine["vr"], other["vr"]) and mine["vr"] == other["vr"]:
            for one, another in zip(mine.get("Value", []), other.get("Value", []), strict=True):
                compare(one, another)
        elif mine["vr"] == other["vr"] and "Value" in other and mine["vr"] not in ("UN", "OB", "OW"):
            assert values(mine) == values(other), tag


def values(element: Mapping[str, Any]) -> list[Any]:
    return [normal(value) for value in element.get("Value", []) if value not in (None, "")]


def normal(value: Any) -> Any:
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else pytest.approx(value)
    if isinstance(value, dict):
        return {key: text.rstrip("^ ") for key, text in value.items() if text.strip("^ ")}
    return value.strip() if isinstance(value, str) else value


@pytest.mark.anyio
async def test_metadata_of_a_study(library: Library) -> None:
    library.add(mr_dataset(1, OperatorsName="A^B=ideo=phon", PixelSpacing=[0.5, 1]), mr_dataset(2), htj2k=True)
    async with library.client() as client:
        study = (await client.get(f"/dicom-web/studies/{ROOT}.1/metadata")).json()
        again = (await client.get(f"/dicom-web/studies/{ROOT}.1/metadata")).json()
        xml = await client.get(f"/dicom-web/studies/{ROOT}.1/metadata", headers={"Accept": "application/dicom+xml"})
    assert study == again
    first, second = study
    assert first["00081070"]["Value"] == [{"Alphabetic": "A^B", "Ideographic": "ideo", "Phonetic": "phon"}]
    assert first["00280030"]["Value"] == [0.5, 1]
    assert first["00083002"]["Value"] == [syntax.HTJ2K_LOSSLESS_RPCL]
    assert second["00200013"]["Value"] == [2]
    base = f"{BASE}/dicom-web/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.1.1.1/bulkdata"
    assert first["7FE00010"] == {"vr": "OB", "BulkDataURI": f"{base}/7FE00010"}
    assert "00020010" not in first
    assert xml.status_code == 406


@pytest.mark.anyio
async def test_heads_are_read_once_and_without_the_pixels(library: Library) -> None:
    library.add(mr_dataset(1, rows=256, columns=256))
    sizes: list[int] = []
    real_read = library.store.read

    def counting(location: Any, offset: int = 0, size_bytes: int | None = None) -> bytes:
        sizes.append(len(body := real_read(location, offset, size_bytes)))
        return body

    library.store.read = counting  # type: ignore[method-assign]
    async with library.client() as client:
        for _ in range(3):
            await client.get(f"/dicom-web/studies/{ROOT}.1/metadata")
    assert len(sizes) == 1
    assert sizes[0] < 4096


def test_character_sets_reach_nested_items() -> None:
    item = Dataset()
    item.CodeMeaning = "Écho"
    dataset = mr_dataset(1, SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    dataset.ProcedureCodeSequence = Sequence([item])
    body = described(dataset)
    assert body["00100010"]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert body["00081032"]["Value"][0]["00080104"]["Value"] == ["Écho"]
    assert body["00080005"]["Value"] == ["ISO_IR 192"]


def described(dataset: Dataset) -> Any:
    meta, encoded_dataset = split(part10(dataset))
    return json.loads(encoded(dataset_json(encoded_dataset, meta.transfer_syntax, uri)))


def test_small_binary_values_are_inline_and_large_ones_are_not() -> None:
    dataset = mr_dataset(1)
    dataset.add_new(0x00281201, "OW", b"\1\2" * (INLINE_MAX_BYTES // 2))
    dataset.add_new(0x00281202, "OW", b"\1\2" * (INLINE_MAX_BYTES // 2 + 1))
    body = described(dataset)
    assert body["00281201"]["InlineBinary"].startswith("AQIB")
    assert body["00281202"] == {"vr": "OW", "BulkDataURI": "bulk:00281202"}


def test_numbers_that_json_cannot_say_are_text() -> None:
    dataset = mr_dataset(1, SliceThickness="1e-3", RepetitionTime="", FlipAngle="90")
    dataset.add_new(0x00189073, "FD", [float("inf"), float("nan"), 1.5])
    body = described(dataset)
    assert body["00189073"]["Value"] == ["inf", "nan", 1.5]
    assert body["00180050"]["Value"] == [0.001]
    assert body["00180080"] == {"vr": "DS"}


@given(
    st.binary(max_size=400),
    st.sampled_from([syntax.EXPLICIT_LE, syntax.IMPLICIT_LE, syntax.EXPLICIT_BE, syntax.DEFLATED_LE]),
)
def test_no_bytes_raise(noise: bytes, transfer_syntax: str) -> None:
    encoded(dataset_json(noise, transfer_syntax, uri))
    find_bulk(noise, transfer_syntax, "00081140/0/00420011")


@given(st.integers(0, 1500), st.binary(min_size=1, max_size=8))
def test_no_damage_raises(position: int, noise: bytes) -> None:
    dataset = bytearray(split(part10(mr_dataset(1, rows=8, columns=8)))[1])
    position = min(position, len(dataset) - len(noise))
    dataset[position : position + len(noise)] = noise
    json.loads(encoded(dataset_json(dataset, syntax.EXPLICIT_LE, uri)))
