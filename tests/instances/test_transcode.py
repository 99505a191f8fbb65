from __future__ import annotations

import hashlib
import io
import json

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

import instances.transcode
from instances.description import describe
from instances.htj2k import CodecError, Samples, encode_frame
from instances.part10 import file_header
from instances.syntax import DEFLATED_LE, EXPLICIT_LE, HTJ2K_LOSSLESS_RPCL
from instances.transcode import Kept, Transcoded, restore, transcode, wire_sha256
from schemas.reasons import KeptReason
from tests.datasets import dataset_bytes, mr_dataset
from tests.instances import corpus, hostile

MAX_BYTES = 1 << 28


def transcoded(dataset: bytes | memoryview, syntax: str = EXPLICIT_LE) -> Transcoded | Kept:
    return transcode(dataset, syntax, describe(dataset, syntax), max_bytes=MAX_BYTES)


def accepted(dataset: bytes | memoryview) -> Transcoded:
    outcome = transcoded(dataset)
    assert isinstance(outcome, Transcoded), outcome
    return outcome


def kept_reason(dataset: bytes, syntax: str = EXPLICIT_LE) -> KeptReason:
    outcome = transcoded(dataset, syntax)
    assert isinstance(outcome, Kept)
    return outcome.reason


def stored(outcome: Transcoded) -> bytes:
    return b"".join(outcome.parts)


def overlaid(**options: object) -> Dataset:
    """Twelve bits stored, and an overlay in the bits above them (PS3.5 8.1.1)."""
    dataset = mr_dataset(**options)  # type: ignore[arg-type]
    pixels = np.frombuffer(dataset.PixelData, "<u2").copy()
    pixels[:: len(pixels) // 7] |= 0xA000
    dataset.PixelData = pixels.tobytes()
    return dataset


def signed_dataset() -> Dataset:
    dataset = mr_dataset(PixelRepresentation=1)
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<i2") - 900).astype("<i2").tobytes()
    return dataset


def odd_dataset() -> Dataset:
    return mr_dataset(bits=8, rows=63, columns=61)


REVERSIBLE = {
    "plain": lambda: dataset_bytes(mr_dataset()),
    "frames": lambda: dataset_bytes(mr_dataset(frames=4)),
    "signed": lambda: dataset_bytes(signed_dataset()),
    "signed, sign not extended": lambda: dataset_bytes(mr_dataset(PixelRepresentation=1)),
    "overlay bits": lambda: dataset_bytes(overlaid()),
    "8 bits": lambda: dataset_bytes(mr_dataset(bits=8)),
    "odd length": lambda: dataset_bytes(odd_dataset()),
    "elements behind": lambda: dataset_bytes(mr_dataset()) + hostile.element(0xFFFCFFFC, "OB", b"\x07" * 99),
    "16 bits stored": lambda: dataset_bytes(mr_dataset(BitsStored=16, HighBit=15)),
    "group lengths": lambda: hostile.element(0x00080000, "UL", b"\1\2\3\4") + dataset_bytes(mr_dataset()),
}


@pytest.mark.parametrize("case", REVERSIBLE)
def test_the_received_bytes_come_back(case: str) -> None:
    dataset = REVERSIBLE[case]()
    outcome = accepted(dataset)
    recipe = json.loads(json.dumps(outcome.recipe))
    assert restore(stored(outcome), recipe) == dataset
    assert outcome.transfer_syntax == HTJ2K_LOSSLESS_RPCL
    assert outcome.size_bytes < len(dataset)


def test_an_odd_value_without_padding_comes_back() -> None:
    padded = dataset_bytes(odd_dataset())
    at = padded.index(b"\xe0\x7f\x10\x00OB")
    size = 63 * 61
    unpadded = padded[: at + 8] + size.to_bytes(4, "little") + padded[at + 12 : at + 12 + size]
    assert restore(stored(outcome := accepted(unpadded)), outcome.recipe) == unpadded


def test_what_stands_around_the_pixels_is_not_copied() -> None:
    dataset = dataset_bytes(mr_dataset()) + hostile.element(0xFFFCFFFC, "OB", b"\x07" * 99)
    before, _, after = accepted(dataset).parts
    assert isinstance(before, memoryview) and before.obj is dataset
    assert isinstance(after, memoryview) and after.obj is dataset


@pytest.mark.parametrize("frames", [1, 3])
def test_the_new_data_set_is_sound_and_says_where_its_frames_are(frames: int) -> None:
    dataset = mr_dataset(frames=frames)
    outcome = accepted(dataset_bytes(dataset))
    described = describe(stored(outcome), outcome.transfer_syntax)
    assert described.warnings == ()
    assert described.pixels is not None
    assert described.pixels.value_offset == outcome.pixel_offset
    assert described.pixels.frames == outcome.frames
    assert len(described.pixels.offset_table) == frames
    pixels = np.frombuffer(dataset.PixelData, "<u2").reshape(frames, 64, 64)
    for (offset, size), frame in zip(outcome.frames, pixels, strict=True):
        assert np.array_equal(imagecodecs.jpeg2k_decode(stored(outcome)[offset : offset + size]), frame)


def test_a_codestream_of_odd_length_is_padded() -> None:
    for seed in range(40):
        dataset = mr_dataset(seed=seed)
        if len(encode_frame(np.frombuffer(dataset.PixelData, "<u2").reshape(64, 64), 12)) % 2:
            break
    else:
        pytest.fail("no picture with a codestream of odd length")
    outcome = accepted(dataset_bytes(dataset))
    described = describe(stored(outcome), outcome.transfer_syntax)
    assert described.warnings == ()
    assert described.pixels is not None
    assert described.pixels.frames == outcome.frames
    assert outcome.frames[0][1] % 2 == 0


def test_pydicom_decodes_what_is_stored() -> None:
    dataset = signed_dataset()
    outcome = accepted(dataset_bytes(dataset))
    header = file_header(
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        transfer_syntax=outcome.transfer_syntax,
    )
    read = pydicom.dcmread(io.BytesIO(header + stored(outcome)))
    assert np.array_equal(read.pixel_array, np.frombuffer(dataset.PixelData, "<i2").reshape(64, 64))


def test_every_real_file_is_reversible_or_kept_with_a_reason() -> None:
    reasons, proven = set(), 0
    for real, description in corpus.fileable():
        outcome = transcode(real.dataset, real.meta.transfer_syntax, description, max_bytes=MAX_BYTES)
        if isinstance(outcome, Kept):
            reasons.add(outcome.reason)
            continue
        assert restore(stored(outcome), outcome.recipe) == real.dataset, real.path.name
        proven += 1
    assert proven >= 45
    assert reasons >= {
        *(KeptReason.NO_PIXEL_DATA, KeptReason.ALREADY_COMPRESSED, KeptReason.NOT_EXPLICIT_LITTLE_ENDIAN),
        *(KeptReason.SAMPLES_PER_PIXEL, KeptReason.BITS_ALLOCATED, KeptReason.HAS_WARNINGS),
    }


# -- the reasons to keep ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED_LE])
def test_other_native_syntaxes_are_kept(syntax: str) -> None:
    assert kept_reason(dataset_bytes(mr_dataset(), syntax), syntax) is KeptReason.NOT_EXPLICIT_LITTLE_ENDIAN


def test_implicit_bytes_under_an_explicit_syntax_are_kept() -> None:
    implicit = dataset_bytes(mr_dataset(), ImplicitVRLittleEndian)
    assert kept_reason(implicit) is KeptReason.NOT_EXPLICIT_LITTLE_ENDIAN


def test_warnings_no_pixels_and_size_are_reasons() -> None:
    without = mr_dataset()
    del without.PixelData
    assert kept_reason(dataset_bytes(without)) is KeptReason.NO_PIXEL_DATA
    assert kept_reason(dataset_bytes(mr_dataset(Rows=63))) is KeptReason.HAS_WARNINGS
    dataset = dataset_bytes(mr_dataset())
    outcome = transcode(dataset, EXPLICIT_LE, describe(dataset, EXPLICIT_LE), max_bytes=len(dataset) - 1)
    assert outcome == Kept(reason=KeptReason.TOO_LARGE)


def test_noise_does_not_get_smaller() -> None:
    noise = np.random.default_rng(3).integers(0, 1 << 16, 64 * 64).astype("<u2").tobytes()
    assert kept_reason(dataset_bytes(mr_dataset(BitsStored=16, HighBit=15, PixelData=noise))) is KeptReason.NOT_SMALLER


def test_a_codec_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(samples: Samples, bits_stored: int | None = None) -> bytes:
        raise CodecError

    monkeypatch.setattr(instances.transcode, "encode_frame", fails)
    assert kept_reason(dataset_bytes(mr_dataset())) is KeptReason.CODEC_FAILED


def test_one_wrong_sample_fails_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(samples: Samples, bits_stored: int | None = None) -> bytes:
        wrong = samples.copy()
        wrong[5, 5] ^= 1
        return encode_frame(wrong, bits_stored)

    monkeypatch.setattr(instances.transcode, "encode_frame", lies)
    assert kept_reason(dataset_bytes(mr_dataset())) is KeptReason.PROOF_FAILED


def test_the_proof_is_against_the_digest_of_receipt() -> None:
    dataset = dataset_bytes(mr_dataset())
    description = describe(dataset, EXPLICIT_LE)
    assert wire_sha256(dataset) == hashlib.sha256(dataset).hexdigest()
    other = transcode(dataset, EXPLICIT_LE, description, max_bytes=MAX_BYTES, received_sha256="0" * 64)
    assert other == Kept(reason=KeptReason.PROOF_FAILED)


def test_a_damaged_store_never_gives_back_other_bytes_silently() -> None:
    outcome = accepted(dataset_bytes(mr_dataset()))
    data = stored(outcome)
    with pytest.raises(CodecError):
        restore(data[: outcome.pixel_offset + 4], outcome.recipe)
    with pytest.raises(CodecError):
        restore(data, {**outcome.recipe, "element_offset": 3})
    with pytest.raises(CodecError):
        restore(data, {**outcome.recipe, "version": 99})
    with pytest.raises(CodecError):
        restore(data, {})


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_whatever_the_picture_the_bytes_come_back(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([8, 16]))
    rows, columns, frames = (data.draw(st.integers(1, high)) for high in (70, 70, 3))
    seed = data.draw(st.integers(0, 1000))
    spread = data.draw(st.integers(0, bits))
    values = np.random.default_rng(seed).integers(0, 1 << spread, rows * columns * frames).astype(f"<u{bits // 8}")
    raw = values.tobytes() + b"\0" * (values.nbytes % 2)
    dataset = mr_dataset(rows=rows, columns=columns, bits=bits, PixelRepresentation=data.draw(st.integers(0, 1)))
    dataset.BitsStored = data.draw(st.integers(1, bits))
    dataset.NumberOfFrames = frames
    dataset.PixelData = raw
    encoded = dataset_bytes(dataset)
    outcome = transcoded(encoded)
    if isinstance(outcome, Kept):
        assert outcome.reason is KeptReason.NOT_SMALLER
    else:
        assert restore(stored(outcome), outcome.recipe) == encoded
        assert all(size % 2 == 0 for _, size in outcome.frames)  # PS3.5 A.4
