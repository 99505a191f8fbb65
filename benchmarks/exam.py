"""The load: MR slices of 0.5 MB with a fixed seed, like the demo's but one series and always the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

SEED = 20260301
ROWS = COLUMNS = 512
_ROOT = "1.2.826.0.1.3680043.10.1471.9"
_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def write_exams(folder: Path, *, instances: int, studies: int = 1) -> list[Path]:
    """Write `instances` slices spread over `studies`; files that exist already are kept. Gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.dcm" for number in range(instances)]
    for number, path in enumerate(paths):
        if not path.exists():
            _write(path, number, number % studies)
    return paths


def _write(path: Path, number: int, study: int) -> None:
    dataset = Dataset()
    dataset.SOPClassUID = UID(_MR_IMAGE_STORAGE)
    dataset.SOPInstanceUID = UID(f"{_ROOT}.{study}.1.{number}")
    dataset.StudyDate, dataset.StudyTime = "20260301", "081500"
    dataset.Modality, dataset.StudyDescription = "MR", "Benchmark"
    dataset.PatientName, dataset.PatientID = f"BENCH^{study}", f"BENCH{study}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(f"{_ROOT}.{study}"), UID(f"{_ROOT}.{study}.1")
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.add_new(0x7FE00010, "OW", slice_pixels(number).tobytes())
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset("", dataset, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)


def slice_pixels(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """A smooth head-like picture with Rician-like noise inside it and air around, 12 bits in 16."""
    rng = np.random.default_rng([SEED, number])
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    radius = np.hypot(x / 0.72, y / 0.88)
    folds = 260 * np.sin(18 * x + number * 0.05) * np.cos(15 * y) + 180 * np.sin(7 * (x + y))
    tissue = np.where(radius < 0.92, 1500 + folds - 500 * radius, np.where(radius < 1.0, 2900, 0))
    noise = np.hypot(rng.normal(0, 9, tissue.shape), rng.normal(0, 9, tissue.shape))
    pixels: np.ndarray[tuple[int, int], np.dtype[np.uint16]] = np.clip(tissue + noise, 0, 4095).astype("<u2")
    return pixels
