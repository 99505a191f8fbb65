"""Data sets in any native syntax: pydicom writes OW as it is given, so its words are turned here for big endian."""

from __future__ import annotations

import copy

import numpy as np
from pydicom.dataset import Dataset

from instances.syntax import EXPLICIT_BE
from tests.datasets import dataset_bytes


def encoded(dataset: Dataset, transfer_syntax: str) -> bytes:
    """`dataset`, whose Pixel Data is little endian, without group 2 in a native transfer syntax."""
    if transfer_syntax != EXPLICIT_BE or dataset["PixelData"].VR != "OW":
        return dataset_bytes(dataset, transfer_syntax)
    turned = copy.deepcopy(dataset)
    turned.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    return dataset_bytes(turned, transfer_syntax)
