"""The phantom as a brain MR exam: T1, T2 and FLAIR series with realistic geometry, as Part-10 files."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from cli.phantom import BOTTOM_MM, PIXEL_SPACING_MM, SIZE, TOP_MM, Contrast, Image, Phantom

SERIES: Final[tuple[Contrast, ...]] = ("T1", "T2", "FLAIR")
_FULL_SCALE = 3000
_DESCRIPTIONS: dict[Contrast, str] = {"T1": "T1 SE axial", "T2": "T2 TSE axial", "FLAIR": "T2 FLAIR axial"}
#: Repetition, echo and inversion time in ms, of a 1.5 T protocol.
_TIMES_MS: dict[Contrast, tuple[float, float, float | None]] = {
    "T1": (550.0, 11.0, None),
    "T2": (4500.0, 98.0, None),
    "FLAIR": (9000.0, 112.0, 2500.0),
}
_WINDOW: dict[Contrast, tuple[int, int]] = {"T1": (1300, 2700), "T2": (1500, 2900), "FLAIR": (1050, 2100)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One synthetic exam. With the same seed, series, slices and moment it is the same bytes, UIDs included."""

    seed: int
    #: Names the exam: its UIDs follow from it.
    identity: str
    acquired: datetime
    slices: int
    series: Sequence[Contrast] = SERIES

    @property
    def study_instance_uid(self) -> str:
        return self.uid("study")

    @property
    def instance_count(self) -> int:
        return self.slices * len(self.series)

    def uid(self, *what: object) -> str:
        """A UID derived from the exam's identity (PS3.5 B.2)."""
        name = "/".join(map(str, (self.identity, *what)))
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"

    def instances(self) -> Iterator[tuple[str, bytes]]:
        """(SOP Instance UID, Part-10 file), slice by slice from the bottom, every series of a slice together."""
        phantom = Phantom(self.seed)
        for index, z_mm in enumerate(np.linspace(BOTTOM_MM, TOP_MM, self.slices), start=1):
            images = phantom.slice(float(z_mm), tuple(self.series))
            for contrast in self.series:
                dataset = self._dataset(contrast, index, float(z_mm), images[contrast])
                yield dataset.SOPInstanceUID, _part10(dataset)

    def _dataset(self, contrast: Contrast, number: int, z_mm: float, image: Image) -> Dataset:
        dataset = Dataset()
        self._identify(dataset, contrast, number)
        _describe_acquisition(dataset, contrast, self._spacing_mm())
        _place(dataset, z_mm)
        _fill(dataset, contrast, image)
        return dataset

    def _identify(self, dataset: Dataset, contrast: Contrast, number: int) -> None:
        series_number = SERIES.index(contrast) + 1
        moment = self.acquired + timedelta(minutes=4 * (series_number - 1))
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = UID(self.uid(contrast, number))
        for name, when in (("Study", self.acquired), ("Series", moment), ("Acquisition", moment), ("Content", moment)):
            setattr(dataset, f"{name}Date", when.strftime("%Y%m%d"))
            setattr(dataset, f"{name}Time", when.strftime("%H%M%S"))
        dataset.AccessionNumber = f"D{self.acquired:%y%m%d%H%M%S}"
        dataset.Modality = "MR"
        dataset.Manufacturer = "sansfilm"
        dataset.ManufacturerModelName = "phantom"
        dataset.InstitutionName = "sansfilm demonstration"
        dataset.ReferringPhysicianName = ""
        dataset.StudyDescription = "MR brain (synthetic)"
        dataset.SeriesDescription = _DESCRIPTIONS[contrast]
        dataset.PatientName = f"Phantom^Demo {self.seed % 10000:04d}"
        dataset.PatientID = f"DEMO-{self.seed % 10**8:08d}"
        dataset.PatientBirthDate = ""
        dataset.PatientSex = "O"
        dataset.BodyPartExamined = "BRAIN"
        dataset.PatientPosition = "HFS"
        dataset.StudyInstanceUID = UID(self.study_instance_uid)
        dataset.SeriesInstanceUID = UID(self.uid(contrast))
        dataset.FrameOfReferenceUID = UID(self.uid("frame of reference"))
        dataset.PositionReferenceIndicator = ""
        dataset.StudyID = "1"
        dataset.SeriesNumber = series_number
        dataset.AcquisitionNumber = 1
        dataset.InstanceNumber = number

    def _spacing_mm(self) -> float:
        return (TOP_MM - BOTTOM_MM) / max(self.slices - 1, 1)


def _describe_acquisition(dataset: Dataset, contrast: Contrast, spacing_mm: float) -> None:
    repetition_ms, echo_ms, inversion_ms = _TIMES_MS[contrast]
    dataset.ScanningSequence = "IR" if inversion_ms else "SE"
    dataset.SequenceVariant = "SK"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.RepetitionTime = repetition_ms
    dataset.EchoTime = echo_ms
    if inversion_ms:
        dataset.InversionTime = inversion_ms
    dataset.EchoTrainLength = 1 if contrast == "T1" else 15
    dataset.MagneticFieldStrength = 1.5
    dataset.SliceThickness = f"{min(spacing_mm, 5.0):.4g}"
    dataset.SpacingBetweenSlices = f"{spacing_mm:.6g}"
    dataset.ProtocolName = "brain"


def _place(dataset: Dataset, z_mm: float) -> None:
    """Where the slice lies: the centre of its first pixel, and the directions of its rows and columns."""
    corner_mm = -(SIZE - 1) / 2 * PIXEL_SPACING_MM
    dataset.ImagePositionPatient = [f"{corner_mm:.3f}", f"{corner_mm:.3f}", f"{z_mm:.3f}"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = f"{z_mm:.3f}"
    dataset.PixelSpacing = [PIXEL_SPACING_MM, PIXEL_SPACING_MM]


def _fill(dataset: Dataset, contrast: Contrast, image: Image) -> None:
    pixels = np.clip(np.rint(image * _FULL_SCALE), 0, 4095).astype("<u2")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.SmallestImagePixelValue = int(pixels.min())
    dataset.LargestImagePixelValue = int(pixels.max())
    dataset.WindowCenter, dataset.WindowWidth = _WINDOW[contrast]
    dataset.add_new(0x7FE00010, "OW", pixels.tobytes())


def _part10(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    FileDataset("", dataset, file_meta=meta, preamble=bytes(128)).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
