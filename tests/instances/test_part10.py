import io
import struct

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.elements import walk
from instances.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, file_header, split
from instances.syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, JPEG_2000, Encoding
from runtime.errors import Rejected
from schemas.identifiers import is_conforming_uid
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset, part10
from tests.instances import corpus


def header(syntax: str = EXPLICIT_LE, calling_ae: str = "") -> bytes:
    return file_header(
        sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid="1.2.3", transfer_syntax=syntax, calling_ae=calling_ae
    )


def test_pydicom_reads_our_header_strictly() -> None:
    file = header(IMPLICIT_LE, "SCANNER1") + dataset_bytes(mr_dataset(), IMPLICIT_LE)
    read = pydicom.dcmread(io.BytesIO(file))
    meta = read.file_meta
    assert meta.MediaStorageSOPClassUID == MR_IMAGE_STORAGE
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == IMPLICIT_LE
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SendingApplicationEntityTitle == "SCANNER1"
    assert meta.FileMetaInformationGroupLength == len(header(IMPLICIT_LE, "SCANNER1")) - 144
    assert read.Rows == 64


@pytest.mark.parametrize("calling_ae", ["", "ODD", "EVEN"])
def test_values_are_padded_to_even_lengths(calling_ae: str) -> None:
    file = header(IMPLICIT_LE, calling_ae)
    elements = list(walk(file, Encoding(), 132))
    assert len(elements) == 7 + bool(calling_ae)
    assert all((element.value_end - element.value_offset) % 2 == 0 for element in elements)


def test_our_identity_conforms() -> None:
    assert is_conforming_uid(IMPLEMENTATION_CLASS_UID)
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


def test_split_finds_what_we_framed_and_copies_nothing() -> None:
    dataset = dataset_bytes(mr_dataset())
    file = header(JPEG_2000) + dataset
    meta, view = split(file)
    assert (meta.transfer_syntax, meta.sop_class_uid, meta.sop_instance_uid) == (JPEG_2000, MR_IMAGE_STORAGE, "1.2.3")
    assert meta.dataset_offset == len(header(JPEG_2000))
    assert view == dataset
    assert view.obj is file


def test_split_agrees_with_pydicom_on_every_real_file() -> None:
    compared = 0
    for real in corpus.readable():
        meta = pydicom.filereader.read_file_meta_info(real.path) if real.file[128:132] == b"DICM" else None
        if meta is None or "TransferSyntaxUID" not in meta:
            continue
        assert real.meta.transfer_syntax == meta.TransferSyntaxUID, real.path.name
        assert real.meta.sop_instance_uid == str(meta.get("MediaStorageSOPInstanceUID", "")), real.path.name
        compared += 1
    assert compared > 200


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_a_bare_data_set_has_its_syntax_guessed(syntax: str) -> None:
    dataset = dataset_bytes(mr_dataset(), syntax)
    meta, view = split(dataset)
    assert (meta.transfer_syntax, meta.dataset_offset) == (syntax, 0)
    assert view == dataset


def test_no_preamble_and_a_wrong_or_missing_group_length_are_tolerated() -> None:
    dataset = dataset_bytes(mr_dataset())
    file = part10(mr_dataset())
    wrong_length = file[:140] + struct.pack("<L", 1) + file[144:]
    no_length = file[:132] + file[144:]
    for variant in (file[128:], file[132:], wrong_length, no_length):
        meta, view = split(variant)
        assert meta.transfer_syntax == EXPLICIT_LE
        assert view == dataset


@pytest.mark.parametrize("name", ["README.txt", "crayons.icc", "test1.json", "zipMR.gz"])
def test_other_files_are_refused(name: str) -> None:
    with pytest.raises(Rejected):
        split(corpus.path_of(name).read_bytes())


@given(st.binary(max_size=300))
def test_any_bytes_are_split_or_refused(file: bytes) -> None:
    for candidate in (file, bytes(128) + b"DICM" + file, header() + file):
        try:
            meta, view = split(candidate)
        except Rejected:
            continue
        assert len(view) == len(candidate) - meta.dataset_offset


@given(st.text(max_size=20))
def test_odd_names_never_break_the_header(text: str) -> None:
    meta, view = split(file_header(sop_class_uid=text, sop_instance_uid=text, transfer_syntax=EXPLICIT_LE) + b"x" * 9)
    assert meta.transfer_syntax == EXPLICIT_LE
    assert view == b"x" * 9
