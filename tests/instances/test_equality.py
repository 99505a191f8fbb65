from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from instances.decode import IsolatedDecoder
from instances.description import describe
from instances.elements import Buffer
from instances.equality import equivalent
from instances.part10 import split
from instances.syntax import DEFLATED_LE, EXPLICIT_LE, JPEG_2000, LOSSLESS, NATIVE
from instances.transcode import Transcoded, transcode
from tests.datasets import dataset_bytes, mr_dataset
from tests.instances import corpus, hostile
from tests.instances.encoded import encoded

#: Their encoding on the way through DCMTK: other lengths, syntaxes, byte order, group lengths, padding.
RECODINGS = [["-e"], ["+e", "+g"], ["+te"], ["+ti"], ["+tb", "-e"], ["+td"], ["+p", "64", "32"]]
LOSSLESS_TOOLS = [["dcmcrle"], ["dcmcjpls", "+el"], ["dcmdrle"], ["dcmdjpls"]]
#: What DCMTK makes anew when it compresses: overlays out of the unused bits, samples of 32 bits by words.
CHANGED_BY_DCMTK = {"MR-SIEMENS-DICOM-WithOverlays.dcm", "mlut_18.dcm", "examples_overlay.dcm", "badVR.dcm"} | {
    *("rtdose_expb.dcm", "rtdose_expb_1frame.dcm"),
}


def never(dataset: Buffer, transfer_syntax: str) -> Buffer:
    raise AssertionError("nothing is to be decoded here")


def through(command: list[str], source: Path, target: Path) -> tuple[str, memoryview] | None:
    """(transfer syntax, data set) of what a tool of DCMTK makes of `source`; None if it refuses."""
    done = subprocess.run([*command, str(source), str(target)], capture_output=True, check=False)
    if done.returncode:
        return None
    meta, dataset = split(target.read_bytes())
    return meta.transfer_syntax, dataset


@pytest.mark.dcmtk
def test_what_dcmtk_reencodes_stays_equal(tmp_path: Path) -> None:
    cases = [
        (real, options)
        for number, real in enumerate(corpus.readable())
        for options in (RECODINGS if len(real.file) < 100_000 and number % 4 == 0 else [RECODINGS[number % 7]])
        if not real.path.name.startswith("DICOMDIR") and len(real.file) < 3_000_000
    ]

    def differs(number: int) -> str | None:
        real, options = cases[number]
        made = through(["dcmconv", *options], real.path, tmp_path / f"{number}.dcm")
        if made is None:
            return ""
        same = equivalent(real.dataset, real.meta.transfer_syntax, made[1], made[0], decode=never)
        return None if same else f"{real.path.name} {options}"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(differs, range(len(cases))))
    assert [outcome for outcome in outcomes if outcome] == []
    assert outcomes.count(None) > 300


@pytest.mark.dcmtk
@pytest.mark.parametrize("tool", [["dcmcrle"], ["dcmcjpls", "+el"], ["dcmdrle"], ["dcmdjpls"]])
def test_what_dcmtk_compresses_or_decompresses_without_loss_stays_equal(
    tool: list[str], tmp_path: Path, decoder: IsolatedDecoder
) -> None:
    compared = 0
    for real, description in corpus.fileable():
        if description.pixels is None or len(real.file) > 300_000 or real.path.name in CHANGED_BY_DCMTK:
            continue
        if real.meta.transfer_syntax not in NATIVE | LOSSLESS or len(real.path.name) < 7:
            continue
        made = through(tool, real.path, tmp_path / "made.dcm")
        if made is None or made[0] == real.meta.transfer_syntax:
            continue
        syntax = real.meta.transfer_syntax
        assert equivalent(real.dataset, syntax, made[1], made[0], decode=decoder.samples), real.path.name
        compared += 1
    assert compared >= 2


def test_our_own_transcode_is_equal_to_what_it_came_from(decoder: IsolatedDecoder) -> None:
    dataset = dataset_bytes(mr_dataset(frames=2))
    made = transcode(dataset, EXPLICIT_LE, describe(dataset, EXPLICIT_LE), max_bytes=1 << 28)
    assert isinstance(made, Transcoded)
    stored = b"".join(made.parts)
    assert equivalent(dataset, EXPLICIT_LE, stored, made.transfer_syntax, decode=decoder.samples)
    brighter = mr_dataset(frames=2)
    brighter.PixelData = bytes([brighter.PixelData[0] ^ 1]) + brighter.PixelData[1:]
    other = dataset_bytes(brighter)
    assert not equivalent(other, EXPLICIT_LE, stored, made.transfer_syntax, decode=decoder.samples)


# -- what is other content ---------------------------------------------------------------------------------------------


def with_code(value: str) -> Dataset:
    dataset, inner, outer = mr_dataset(), Dataset(), Dataset()
    inner.CodeValue = value
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    dataset.SourceImageSequence = Sequence([outer, Dataset()])
    return dataset


def one_bit_other() -> Dataset:
    dataset = mr_dataset()
    dataset.PixelData = dataset.PixelData[:-1] + bytes([dataset.PixelData[-1] ^ 1])
    return dataset


def ending_in(last: bytes) -> Dataset:
    dataset = mr_dataset()
    dataset.PixelData = dataset.PixelData[: -40 * len(last)] + 40 * last
    return dataset


def private(value: bytes) -> Dataset:
    dataset = mr_dataset()
    dataset.add_new(0x00090010, "LO", "ACME")
    dataset.add_new(0x00091010, "UN", value)
    return dataset


CHANGES: dict[str, Callable[[], tuple[Dataset, Dataset]]] = {
    "a text": lambda: (mr_dataset(), mr_dataset(StudyDescription="Brains")),
    "a leading space": lambda: (mr_dataset(), mr_dataset(StudyDescription=" Brain")),
    "a number": lambda: (mr_dataset(), mr_dataset(PixelRepresentation=1)),
    "one more element": lambda: (mr_dataset(), mr_dataset(PatientComments="x")),
    "an empty element": lambda: (mr_dataset(), mr_dataset(PatientComments="")),
    "one sample": lambda: (mr_dataset(), one_bit_other()),
    "deep in a sequence": lambda: (with_code("A"), with_code("B")),
    "one more item": lambda: (mr_dataset(SourceImageSequence=[Dataset()]), mr_dataset(SourceImageSequence=[])),
    "photometric interpretation": lambda: (mr_dataset(), mr_dataset(PhotometricInterpretation="MONOCHROME1")),
    "monochrome the other way round": lambda: (mr_dataset(), mr_dataset(PhotometricInterpretation="MONOCHROME1")),
    "a number that ends like padding": lambda: (
        mr_dataset(SmallestImagePixelValue=0),
        mr_dataset(SmallestImagePixelValue=32),
    ),
    "the last samples end like padding": lambda: (ending_in(b"\0\0"), ending_in(b"\x20\0")),
    "a private value that ends like padding": lambda: (private(b"\1\2\0\0"), private(b"\1\2\0\x20")),
    "a space before a backslash in text of one value": lambda: (
        mr_dataset(PatientComments="a \\b"),
        mr_dataset(PatientComments="a\\b"),
    ),
    "number of values": lambda: (mr_dataset(ImageType=["A", "B"]), mr_dataset(ImageType=["A", "B", ""])),
}
SYNTAXES = [EXPLICIT_LE, ImplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED_LE]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_other_content_is_not_equal(change: str, syntax: str) -> None:
    a, b = CHANGES[change]()
    encoded_a, encoded_b = encoded(a, EXPLICIT_LE), encoded(b, syntax)
    assert not equivalent(encoded(a, syntax), syntax, encoded_b, syntax, decode=never)
    assert not equivalent(encoded_a, EXPLICIT_LE, encoded_b, syntax, decode=never)
    assert not equivalent(encoded_b, syntax, encoded_a, EXPLICIT_LE, decode=never)
    assert equivalent(encoded_a, EXPLICIT_LE, encoded(a, syntax), syntax, decode=never)
    assert equivalent(encoded_b, syntax, encoded(b, EXPLICIT_LE), EXPLICIT_LE, decode=never)


def test_group_lengths_trailing_padding_and_group_2_do_not_count() -> None:
    plain = dataset_bytes(mr_dataset())
    dressed = (
        hostile.element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
        + hostile.element(0x00080000, "UL", b"\1\2\3\4")
        + plain
        + hostile.element(0xFFFCFFFC, "OB", bytes(40))
    )
    assert equivalent(plain, EXPLICIT_LE, dressed, EXPLICIT_LE, decode=never)


@pytest.mark.parametrize("value", [b"Brain\0", b"Brain   ", b"Brain"])
def test_padding_behind_a_value_does_not_count(value: bytes) -> None:
    plain = dataset_bytes(mr_dataset())
    other = plain.replace(hostile.element(0x00081030, "LO", b"Brain "), hostile.element(0x00081030, "LO", value))
    assert other != plain
    assert equivalent(plain, EXPLICIT_LE, other, EXPLICIT_LE, decode=never)


@pytest.mark.parametrize(("last", "same"), [(b"\0", True), (b"\5", False), (b"\0\0\0", False)])
def test_one_null_byte_behind_a_binary_value_is_padding(last: bytes, same: bool) -> None:
    plain = dataset_bytes(mr_dataset())
    odd, longer = (hostile.element(0x00091010, "OB", b"\1\2\3" + tail) + plain for tail in (b"", last))
    assert equivalent(odd, EXPLICIT_LE, longer, EXPLICIT_LE, decode=never) is same


def test_lossy_streams_are_equal_only_as_bytes() -> None:
    real = corpus.read(corpus.path_of("US1_J2KI.dcm"))
    raw = bytearray(real.dataset)
    assert equivalent(real.dataset, JPEG_2000, bytes(raw), JPEG_2000, decode=never)
    pixels = describe(real.dataset, JPEG_2000).pixels
    assert pixels is not None
    raw[pixels.fragments[0][0] + 2000] ^= 1
    assert not equivalent(real.dataset, JPEG_2000, bytes(raw), JPEG_2000, decode=never)


def test_what_cannot_be_walked_equals_only_its_bytes() -> None:
    broken = dataset_bytes(mr_dataset())[:-5]
    assert equivalent(broken, EXPLICIT_LE, bytearray(broken), EXPLICIT_LE, decode=never)
    assert not equivalent(broken, EXPLICIT_LE, broken[:-1], EXPLICIT_LE, decode=never)
    deep = hostile.with_nested(1000)
    assert not equivalent(deep, EXPLICIT_LE, hostile.with_nested(1000, defined=True), EXPLICIT_LE, decode=never)
    bomb = hostile.deflate_bomb()
    assert not equivalent(bomb, DEFLATED_LE, bomb[:-1], DEFLATED_LE, decode=never)


def test_compressed_pixels_do_not_excuse_another_photometric_interpretation(decoder: IsolatedDecoder) -> None:
    native, inverted = mr_dataset(), mr_dataset(PhotometricInterpretation="MONOCHROME1")
    for packed in (native, inverted):
        made = copy.deepcopy(packed)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = EXPLICIT_LE
        made.compress(RLELossless, generate_instance_uid=False)
        stored = dataset_bytes(made, RLELossless)
        same = equivalent(dataset_bytes(native), EXPLICIT_LE, stored, RLELossless, decode=decoder.samples)
        assert same is (packed is native)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, ImplicitVRLittleEndian])
def test_what_is_left_behind_the_last_element_counts_unless_it_is_zero(syntax: str) -> None:
    plain = encoded(mr_dataset(), syntax)
    assert equivalent(plain, syntax, plain + bytes(6), syntax, decode=never)
    assert not equivalent(plain, syntax, plain + b"\1\2\3", syntax, decode=never)
