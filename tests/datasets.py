"""Synthetic data sets for tests: small, seeded, with patient attributes that no log may ever show."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
#: Planted values; `tests` search logs, metrics, URLs and error messages for them.
PLANTED = {"PatientName": "PLANTED^NAME", "PatientID": "PLANTED-ID-7719", "PatientBirthDate": "19310407"}
ROOT = "1.2.826.0.1.3680043.10.1471"


def mr_dataset(
    number: int = 1,
    *,
    study: int = 1,
    series: int = 1,
    rows: int = 64,
    columns: int = 64,
    bits: int = 16,
    frames: int = 1,
    seed: int = 0,
    **overrides: object,
) -> Dataset:
    """One MR slice with a smooth, seeded picture; `overrides` set attributes by keyword."""
    rng = np.random.default_rng([seed, study, series, number])
    y, x = np.mgrid[0:rows, 0:columns]
    base = 900 * np.exp(-(((x - columns / 2) / (columns / 3)) ** 2 + ((y - rows / 2) / (rows / 3)) ** 2))
    stack = [base + rng.normal(0, 12, base.shape) + 3 * frame for frame in range(frames)]
    pixels = np.clip(np.stack(stack), 0, 2**12 - 1)
    dataset = Dataset()
    dataset.SOPClassUID = UID(MR_IMAGE_STORAGE)
    dataset.SOPInstanceUID = UID(f"{ROOT}.{study}.{series}.{number}")
    dataset.StudyDate = "20260301"
    dataset.StudyTime = "081500"
    dataset.AccessionNumber = f"ACC{study}"
    dataset.Modality = "MR"
    dataset.StudyDescription = "Brain"
    dataset.SeriesDescription = f"T1 series {series}"
    for keyword, value in PLANTED.items():
        setattr(dataset, keyword, value)
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = UID(f"{ROOT}.{study}")
    dataset.SeriesInstanceUID = UID(f"{ROOT}.{study}.{series}")
    dataset.StudyID = str(study)
    dataset.SeriesNumber = series
    dataset.InstanceNumber = number
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.BitsAllocated = bits
    dataset.BitsStored = 12 if bits == 16 else 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    if bits == 8:
        dataset.add_new(0x7FE00010, "OB", (pixels / 16).astype(np.uint8).tobytes())
    else:
        dataset.add_new(0x7FE00010, "OW", pixels.astype("<u2").tobytes())
    for keyword, value in overrides.items():
        setattr(dataset, keyword, value)
    return dataset


def part10(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """`dataset` as a Part-10 file, encoded by pydicom."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    syntax = meta.TransferSyntaxUID = UID(transfer_syntax)
    file = FileDataset(
        "",
        dataset,
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
    )
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dataset_bytes(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """`dataset` encoded without group 2: what C-STORE carries."""
    file = part10(dataset, transfer_syntax)
    # Group 2 begins at 132; its group length (PS3.10 7.1) says where it ends.
    return file[144 + int.from_bytes(file[140:144], "little") :]


def write_exam(folder: Path, *, slices: int = 3, study: int = 1, **options: int) -> list[Path]:
    """Write a small exam of `slices` files; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, slices + 1):
        path = folder / f"{number:04d}.dcm"
        path.write_bytes(part10(mr_dataset(number, study=study, **options)))
        paths.append(path)
    return paths
