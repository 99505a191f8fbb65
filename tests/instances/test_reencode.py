import io
import warnings

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from instances.description import describe
from instances.elements import Buffer
from instances.equality import equivalent
from instances.part10 import file_header
from instances.reencode import edited, explicit_element, reencode
from instances.syntax import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, NATIVE
from runtime.errors import Unfileable
from schemas.reasons import QuarantineReason
from tests.datasets import dataset_bytes, mr_dataset
from tests.instances import corpus, hostile
from tests.instances.encoded import encoded

WITH_CHOICES = {"SmallestImagePixelValue": -5, "PixelPaddingValue": -2000}


def rich_dataset() -> Dataset:
    dataset = mr_dataset(PixelRepresentation=1)
    for keyword, value in WITH_CHOICES.items():
        setattr(dataset, keyword, value)
    item = Dataset()
    item.CodeValue = "X"
    dataset.SourceImageSequence = Sequence([item, Dataset()])
    dataset.add_new(0x00280030, "DS", ["0.5", "0.25"])
    dataset.FrameIncrementPointer = 0x00181063
    dataset.RealWorldValueMappingSequence = Sequence([])
    dataset.add_new(0x00189087, "FD", 1.5)
    return dataset


def never(dataset: Buffer, transfer_syntax: str) -> Buffer:
    raise AssertionError


def parsed(dataset: Buffer) -> Dataset:
    header = file_header(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax=EXPLICIT_LE)
    return pydicom.dcmread(io.BytesIO(header + bytes(dataset)))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED_LE])
def test_every_value_survives(syntax: str) -> None:
    dataset = rich_dataset()
    made = parsed(reencode(encoded(dataset, syntax), syntax))
    expected = parsed(encoded(dataset, EXPLICIT_LE))
    assert [element.VR for element in made] == [element.VR for element in expected]
    assert all(made[element.tag] == element for element in expected)
    assert np.array_equal(np.frombuffer(made.PixelData, "<u2"), np.frombuffer(dataset.PixelData, "<u2"))


def test_explicit_little_endian_is_not_copied() -> None:
    dataset = dataset_bytes(mr_dataset())
    assert reencode(dataset, EXPLICIT_LE) is dataset


def test_every_real_native_file_says_the_same_afterwards() -> None:
    done = 0
    for real, description in corpus.fileable():
        if real.meta.transfer_syntax not in NATIVE or description.warnings:
            continue
        made = reencode(real.dataset, real.meta.transfer_syntax)
        assert equivalent(real.dataset, real.meta.transfer_syntax, made, EXPLICIT_LE, decode=never), real.path.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(list(parsed(made).iterall())) > 5
        done += 1
    assert done > 150


def test_samples_of_32_bits_turn_as_a_whole() -> None:
    little, big = (corpus.read(corpus.path_of(name)) for name in ("rtdose.dcm", "rtdose_expb.dcm"))
    pixels = [parsed(reencode(real.dataset, real.meta.transfer_syntax)).PixelData for real in (little, big)]
    assert pixels[0] == pixels[1]


def test_private_elements_become_unknown_ones() -> None:
    dataset = mr_dataset()
    block = dataset.private_block(0x0009, "ACME 1", create=True)
    block.add_new(0x01, "LO", "value")
    made = parsed(reencode(dataset_bytes(dataset, IMPLICIT_LE), IMPLICIT_LE))
    assert made[0x00090010].value == "ACME 1"
    assert made.get_item(0x00091001).value.rstrip() == b"value"


def test_a_value_too_long_for_its_representation_becomes_unknown() -> None:
    raw = b"\x08\x00\x30\x10" + (70_000).to_bytes(4, "little") + b"x" * 70_000
    made = reencode(raw + dataset_bytes(mr_dataset(), IMPLICIT_LE), IMPLICIT_LE)
    assert bytes(made[:12]) == b"\x08\x00\x30\x10UN\0\0" + (70_000).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (dataset_bytes(mr_dataset(), IMPLICIT_LE)[:-9], QuarantineReason.PARSE_FAILED),
        (hostile.nested(1000, implicit=True), QuarantineReason.TOO_DEEP),
    ],
)
def test_what_cannot_be_walked_is_told(raw: bytes, reason: QuarantineReason) -> None:
    with pytest.raises(Unfileable) as refusal:
        reencode(raw, IMPLICIT_LE)
    assert refusal.value.reason is reason


@settings(max_examples=60)
@given(st.binary(max_size=300), st.sampled_from([IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE]))
def test_any_bytes_are_reencoded_or_unfileable(raw: bytes, syntax: str) -> None:
    for candidate in (raw, dataset_bytes(mr_dataset(rows=2, columns=2), syntax)[:-40] + raw):
        try:
            reencode(candidate, syntax)
        except Unfileable:
            continue


def test_elements_are_replaced_dropped_and_put_where_they_belong() -> None:
    dataset = dataset_bytes(mr_dataset())
    made = edited(
        dataset,
        {
            0x00081030: explicit_element(0x00081030, b"LO", b"Spine "),
            0x00080060: b"",
            0x00280006: explicit_element(0x00280006, b"US", b"\0\0"),
            0xFFFCFFFC: explicit_element(0xFFFCFFFC, b"OB", b"\0\0"),
        },
    )
    read = parsed(made)
    assert (read.StudyDescription, read.PlanarConfiguration) == ("Spine", 0)
    assert "Modality" not in read
    tags = [element.tag for element in read]
    assert tags == sorted(tags)
    assert describe(made, EXPLICIT_LE).warnings == ()
    assert len(read) == len(mr_dataset()) + 1
