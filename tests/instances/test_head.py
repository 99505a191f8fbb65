import contextlib
import struct
import tracemalloc
import warnings

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from instances.description import describe
from instances.head import HEAD_BYTES, Head, read_head
from instances.syntax import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, JPEG_BASELINE
from runtime.errors import Rejected
from schemas.reasons import RejectReason
from tests.datasets import MR_IMAGE_STORAGE, ROOT, dataset_bytes, mr_dataset
from tests.instances import corpus, hostile

EXPECTED = Head(sop_class_uid=MR_IMAGE_STORAGE, sop_instance_uid=f"{ROOT}.1.1.1", study_instance_uid=f"{ROOT}.1")
SYNTAXES = (EXPLICIT_LE, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_finds_the_uids_in_each_native_syntax(syntax: str) -> None:
    assert read_head(dataset_bytes(mr_dataset(), syntax), syntax) == EXPECTED


def test_agrees_with_pydicom_on_every_real_file() -> None:
    agreed = 0
    for real in corpus.readable():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = pydicom.dcmread(real.path, force=True, stop_before_pixels=True)
            uids = [str(theirs.get(name, "")) for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")]
        if not uids[1]:
            with pytest.raises(Rejected):
                read_head(real.dataset[:HEAD_BYTES], real.meta.transfer_syntax)
            continue
        ours = read_head(real.dataset[:HEAD_BYTES], real.meta.transfer_syntax)
        assert [ours.sop_class_uid, ours.sop_instance_uid, ours.study_instance_uid] == uids, real.path.name
        agreed += 1
    assert agreed > 200


@pytest.mark.parametrize(
    ("written", "declared"),
    [
        (ImplicitVRLittleEndian, EXPLICIT_LE),
        (ImplicitVRLittleEndian, JPEG_BASELINE),
        (EXPLICIT_LE, IMPLICIT_LE),
    ],
)
def test_what_is_written_decides_not_the_declared_syntax(written: str, declared: str) -> None:
    assert read_head(dataset_bytes(mr_dataset(), written), declared) == EXPECTED


def test_an_implicit_length_that_looks_like_a_representation_is_a_length() -> None:
    length = int.from_bytes(b"US", "little")
    odd = struct.pack("<HHL", 0x0008, 0x2111, length) + b"x" * length
    plain = dataset_bytes(mr_dataset(), IMPLICIT_LE)
    at = plain.index(struct.pack("<HH", 0x0010, 0x0010))
    assert read_head(plain[:at] + odd + plain[at:], EXPLICIT_LE) == EXPECTED


def test_passes_over_group_2_and_group_lengths_and_odd_lengths() -> None:
    dataset = (
        hostile.element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
        + hostile.element(0x00080000, "UL", struct.pack("<L", 999))
        + hostile.element(0x00080016, "UI", MR_IMAGE_STORAGE.encode())
        + hostile.element(0x00080018, "UI", b"1.2.3")
        + hostile.element(0x00081030, "LO", b"odd")
        + hostile.element(0x0020000D, "UI", b"1.2")
    )
    assert read_head(dataset, EXPLICIT_LE).study_instance_uid == "1.2"


@pytest.mark.parametrize("defined", [False, True])
def test_passes_over_nested_sequences_before_the_study(defined: bool) -> None:
    assert read_head(hostile.with_nested(60, defined=defined), EXPLICIT_LE) == EXPECTED


def test_a_thousand_nested_sequences_end_the_walk_and_keep_what_was_found() -> None:
    head = read_head(hostile.with_nested(1000), EXPLICIT_LE)
    assert head.sop_instance_uid == EXPECTED.sop_instance_uid
    assert head.study_instance_uid == ""


def test_no_study_is_an_empty_uid() -> None:
    dataset = mr_dataset()
    del dataset.StudyInstanceUID
    assert read_head(dataset_bytes(dataset), EXPLICIT_LE).study_instance_uid == ""


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_instance_uid_is_refused(syntax: str) -> None:
    dataset = mr_dataset()
    encoded = dataset_bytes(dataset, syntax)
    for prefix in (b"", encoded[:7], b"\xff" * 100):
        with pytest.raises(Rejected) as refusal:
            read_head(prefix, syntax)
        assert refusal.value.reason is RejectReason.HEAD_UNREADABLE


def test_a_deflate_bomb_costs_no_more_than_the_head() -> None:
    bomb = hostile.deflate_bomb()
    tracemalloc.start()
    try:
        assert read_head(bomb, DEFLATED_LE) == EXPECTED
        assert tracemalloc.get_traced_memory()[1] < 16 * HEAD_BYTES
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=400), st.sampled_from([EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE]))
def test_any_bytes_are_read_or_refused(prefix: bytes, syntax: str) -> None:
    with contextlib.suppress(Rejected):
        assert read_head(prefix, syntax).sop_instance_uid


@given(st.integers(0, 600), st.sampled_from([EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE]))
def test_a_prefix_never_tells_another_uid(size: int, syntax: str) -> None:
    encoded = dataset_bytes(mr_dataset(rows=4, columns=4), syntax)
    try:
        head = read_head(memoryview(encoded)[:size], syntax)
    except Rejected:
        return
    assert head.sop_instance_uid == EXPECTED.sop_instance_uid
    assert head.study_instance_uid in ("", EXPECTED.study_instance_uid)


def test_of_an_element_that_is_there_twice_the_first_counts_here_and_for_the_worker() -> None:
    plain = dataset_bytes(mr_dataset())
    other = hostile.element(0x00080018, "UI", b"1.2.3.4.5\0")
    place = plain.index(struct.pack("<HH", 0x0008, 0x0018))
    for doubled in (
        plain[:place] + other + plain[place:],
        plain.replace(b"\x08\x00\x20\x00", other + b"\x08\x00\x20\x00"),
    ):
        assert doubled.count(struct.pack("<HH", 0x0008, 0x0018) + b"UI") == 2
        routed = read_head(doubled, EXPLICIT_LE).sop_instance_uid
        assert routed == describe(doubled, EXPLICIT_LE).instance.sop_instance_uid
