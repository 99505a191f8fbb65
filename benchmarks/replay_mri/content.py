"""The data sets: made once an exam from pictures of a fixed seed, and stamped for each instance.

Stamping writes the digits that differ (SOP Instance and Series Instance UID, Instance Number) into bytes that are
there, so an instance costs microseconds and no memory. UIDs have one length, whatever their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from benchmarks.exam import slice_pixels
from benchmarks.replay_mri.schedule import Exam

#: Data sets of one exam held by an association: as many pictures as fit, one at least.
EXAM_BYTES_MAX: Final = 4 * 1024 * 1024
#: Larger instances are sent with this size (a data set is held in memory).
INSTANCE_BYTES_MAX: Final = 256 * 1024 * 1024
SERIES_INSTANCES: Final = 250
_PICTURES: Final = 8
_CINE_ROWS: Final = 480
_ROOT: Final = "1.2.826.0.1.3680043.10.1471.8"
_FIRST_NUMBER: Final = 1_000_000
_FIRST_SERIES: Final = 1_000
Pixels = NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The UIDs of one exam of one run."""

    #: Nine digits: runs against one archive must not meet.
    run: int
    exam: int

    @property
    def study(self) -> str:
        return f"{_ROOT}.{self.run}.{_FIRST_NUMBER + self.exam}"

    def series(self, index: int) -> str:
        return f"{self.study}.{_FIRST_SERIES + index // SERIES_INSTANCES}"

    def instance(self, index: int) -> str:
        return f"{self.series(index)}.{_FIRST_NUMBER + index}"


class ExamContent:
    """The data sets of one exam. Not thread-safe: what `instance` gives is overwritten by its next call."""

    def __init__(self, exam: Exam, *, run: int) -> None:
        self.names = Names(run=run, exam=exam.number)
        self.transfer_syntax = str(JPEGBaseline8Bit if exam.kind.content == "cine" else ExplicitVRLittleEndian)
        size_bytes = min(exam.instance_bytes, INSTANCE_BYTES_MAX)
        count = max(1, min(_PICTURES, exam.instances, EXAM_BYTES_MAX // size_bytes))
        self._datasets = [
            bytearray(_encoded(_dataset(exam, self.names, size_bytes, pictures()[number]))) for number in range(count)
        ]
        head = bytes(self._datasets[0][:4096])
        self._sop_at, self._series_at = _value_at(head, 0x0008, 0x0018), _value_at(head, 0x0020, 0x000E)
        self._number_at = _value_at(head, 0x0020, 0x0013)

    def instance(self, index: int) -> tuple[str, memoryview]:
        """SOP Instance UID and data set of instance `index`."""
        dataset = self._datasets[index % len(self._datasets)]
        sop, series = self.names.instance(index), self.names.series(index)
        dataset[self._sop_at : self._sop_at + len(sop)] = sop.encode()
        dataset[self._series_at : self._series_at + len(series)] = series.encode()
        dataset[self._number_at : self._number_at + 8] = b"%08d" % (index + 1)
        return sop, memoryview(dataset)


@cache
def pictures() -> Sequence[Pixels]:
    """Slices of a head-like phantom with a fixed seed. Call before forking: processes then share them."""
    return tuple(slice_pixels(number) for number in range(_PICTURES))


def _dataset(exam: Exam, names: Names, size_bytes: int, picture: Pixels) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(exam.kind.sop_class_uid), UID(names.instance(0))
    dataset.StudyDate, dataset.StudyTime = "20260301", "081500"
    dataset.AccessionNumber = f"R{exam.number}"
    dataset.Modality, dataset.StudyDescription = exam.kind.modality, f"Replay {exam.kind.name}"
    dataset.PatientName, dataset.PatientID = f"REPLAY^{exam.number:06d}", f"REPLAY-{exam.number:06d}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(names.study), UID(names.series(0))
    dataset.SeriesNumber, dataset.InstanceNumber = 1, "00000001"
    {"pixels": _fill, "cine": _fill_cine, "document": _fill_document}[exam.kind.content](dataset, size_bytes, picture)
    return dataset


def _fill(dataset: Dataset, size_bytes: int, picture: Pixels) -> None:
    """One square picture of 12 bits in 16 that fills the size."""
    pixels = _resampled(picture, side=max(16, round((size_bytes / 2) ** 0.5)))
    _describe(dataset, pixels.shape, bits_allocated=16, bits_stored=12)
    dataset.add_new(0x7FE00010, "OW", pixels.tobytes())


def _fill_cine(dataset: Dataset, size_bytes: int, picture: Pixels) -> None:
    """As many frames of lossy JPEG as the size takes."""
    frame = bytes(imagecodecs.jpeg8_encode((picture[:_CINE_ROWS] >> 4).astype(np.uint8), level=85))
    _describe(dataset, picture[:_CINE_ROWS].shape, bits_allocated=8, bits_stored=8)
    dataset.NumberOfFrames = max(1, size_bytes // len(frame))
    dataset.LossyImageCompression = "01"
    dataset.add_new(0x7FE00010, "OB", encapsulate([frame] * dataset.NumberOfFrames))
    dataset["PixelData"].is_undefined_length = True


def _fill_document(dataset: Dataset, size_bytes: int, _: Pixels) -> None:
    """An encapsulated document that compresses like one."""
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = (b"%PDF-1.4 synthetic " * (size_bytes // 19 + 1))[: max(2, size_bytes & ~1)]


def _describe(dataset: Dataset, shape: tuple[int, ...], *, bits_allocated: int, bits_stored: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits_allocated, bits_stored, bits_stored - 1
    dataset.PixelRepresentation = 0


def _resampled(picture: Pixels, *, side: int) -> Pixels:
    """Smaller ones leave rows and columns out, which keeps noise and air; larger ones are laid out like tiles."""
    rows = picture.shape[0]
    lines = np.linspace(0, rows - 1, side).round().astype(int) if side <= rows else np.arange(side) % rows
    return np.asarray(picture[np.ix_(lines, lines)])


def _encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def _value_at(head: bytes, group: int, element: int) -> int:
    tag = group.to_bytes(2, "little") + element.to_bytes(2, "little")
    return head.index(tag + (b"IS" if element == 0x0013 else b"UI")) + 8
