from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

import instances.decode
from instances.codec import decode_native
from instances.decode import DECODABLE, DecodeFailed, IsolatedDecoder
from instances.description import describe
from instances.htj2k import encode_frame
from instances.part10 import file_header, split
from instances.syntax import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_LE,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS,
    JPEG_LS_LOSSLESS,
    NATIVE,
)
from instances.transcode import Transcoded, transcode
from runtime.errors import Unfileable
from schemas.reasons import QuarantineReason
from schemas.record import InstanceAttributes
from tests.datasets import dataset_bytes, mr_dataset, part10
from tests.instances import corpus
from tests.instances.encoded import encoded


def parsed(dataset: bytes) -> Dataset:
    header = file_header(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax=EXPLICIT_LE)
    return pydicom.dcmread(io.BytesIO(header + dataset))


def reference(path: Path) -> np.ndarray | None:
    """What pydicom decodes; None where none of its plug-ins can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(path).pixel_array
        except Exception:  # noqa: BLE001  # plug-ins raise what they like
            return None


def test_agrees_with_pydicom_on_every_compressed_real_file(decoder: IsolatedDecoder) -> None:
    compared, syntaxes = 0, set()
    for real, description in corpus.fileable():
        small = len(real.file) < 800_000 and description.instance.number_of_frames < 60
        if real.meta.transfer_syntax in NATIVE or description.pixels is None or not small:
            continue
        expected = reference(real.path)
        if expected is None:
            continue
        native = decoder.to_explicit_le(real.file)
        described = describe(native, EXPLICIT_LE)
        assert described.warnings in ((), description.warnings), real.path.name
        assert np.array_equal(parsed(native).pixel_array, expected), real.path.name
        compared += 1
        syntaxes.add(real.meta.transfer_syntax)
    assert compared >= 35
    assert len(syntaxes) >= 4


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb.dcm", "vlut_04.dcm", "emri_small.dcm"])
@pytest.mark.parametrize(
    "tool", [["dcmcjpeg", "+e1", "+tl"], ["dcmcjpeg", "+el", "+tl"], ["dcmcjpls", "+el"], ["dcmcrle"]]
)
def test_lossless_streams_of_dcmtk_give_the_original_samples(
    name: str, tool: list[str], decoder: IsolatedDecoder, tmp_path: Path
) -> None:
    source = corpus.path_of(name)
    made = tmp_path / "made.dcm"
    subprocess.run([*tool, str(source), str(made)], check=True, capture_output=True)
    native = parsed(decoder.to_explicit_le(made.read_bytes()))
    assert np.array_equal(native.pixel_array, pydicom.dcmread(source).pixel_array)
    assert native.PhotometricInterpretation == pydicom.dcmread(source).PhotometricInterpretation


@pytest.mark.dcmtk
def test_a_near_lossless_stream_stays_within_its_error(decoder: IsolatedDecoder, tmp_path: Path) -> None:
    source, made = corpus.path_of("vlut_04.dcm"), tmp_path / "made.dcm"
    subprocess.run(["dcmcjpls", "+en", "+md", "2", str(source), str(made)], check=True, capture_output=True)
    native = parsed(decoder.to_explicit_le(made.read_bytes())).pixel_array.astype(int)
    assert 0 < np.abs(native - pydicom.dcmread(source).pixel_array).max() <= 2


def test_twelve_bit_jpeg_is_decoded(decoder: IsolatedDecoder) -> None:
    native = parsed(decoder.to_explicit_le(corpus.path_of("JPGExtended.dcm").read_bytes()))
    assert native.pixel_array.shape == (1024, 256)
    assert native.pixel_array.max() == 264


def test_what_breaks_off_within_compressed_pixels_is_not_called_native(decoder: IsolatedDecoder) -> None:
    file = corpus.path_of("emri_small_jpeg_2k_lossless_too_short.dcm").read_bytes()
    with pytest.raises(DecodeFailed, match="breaks off"):
        decoder.to_explicit_le(file)


def test_colours_and_offset_tables_match_the_native_form(decoder: IsolatedDecoder) -> None:
    native = parsed(decoder.to_explicit_le(corpus.path_of("SC_rgb_dcmtk_+eb+cy+np.dcm").read_bytes()))
    assert (native.PhotometricInterpretation, native.PlanarConfiguration) == ("RGB", 0)
    assert native["PixelData"].VR == "OB"
    assert len(native.PixelData) == native.Rows * native.Columns * 3


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_native_files_need_no_child(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances.decode, "ProcessPool", None)
    dataset = mr_dataset()
    header = file_header(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax=syntax)
    decoder = IsolatedDecoder(processes=1, timeout_s=5, memory_max_bytes=1 << 30)
    native = parsed(decoder.to_explicit_le(header + encoded(dataset, syntax)))
    assert native.PixelData == dataset.PixelData
    assert native.StudyDescription == "Brain"


def transcoded() -> tuple[bytes, Transcoded]:
    dataset = dataset_bytes(mr_dataset(frames=2))
    made = transcode(dataset, EXPLICIT_LE, describe(dataset, EXPLICIT_LE), max_bytes=1 << 28)
    assert isinstance(made, Transcoded)
    return dataset, made


def test_our_own_transcode_is_undone_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances.decode, "ProcessPool", None)
    dataset, made = transcoded()
    stored = b"".join(made.parts)
    header = file_header(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax=made.transfer_syntax)
    decoder = IsolatedDecoder(processes=1, timeout_s=5, memory_max_bytes=1 << 30)
    assert decoder.to_explicit_le(header + stored, recipe=made.recipe) == dataset
    instance = describe(dataset, EXPLICIT_LE).instance
    for index, (offset, size) in enumerate(made.frames):
        frame = decoder.frame(stored[offset : offset + size], made.transfer_syntax, instance, trusted=True)
        assert frame == mr_dataset(frames=2).PixelData[index * 8192 : (index + 1) * 8192]


def test_a_frame_of_a_stranger_is_decoded_in_a_child(decoder: IsolatedDecoder) -> None:
    real = corpus.read(corpus.path_of("emri_small_RLE.dcm"))
    described = describe(real.dataset, real.meta.transfer_syntax)
    assert described.pixels is not None
    expected = pydicom.dcmread(corpus.path_of("emri_small.dcm")).PixelData
    offset, size = described.pixels.frames[3]
    stream = real.dataset[offset : offset + size]
    frame = decoder.frame(stream, real.meta.transfer_syntax, described.instance)
    assert frame == expected[3 * 8192 : 4 * 8192]


@pytest.mark.parametrize(
    ("name", "reference_name"), [("MR_small_RLE.dcm", "MR_small.dcm"), ("SC_rgb_rle_2frame.dcm", "SC_rgb_2frame.dcm")]
)
def test_samples_of_both_forms_are_the_same(name: str, reference_name: str, decoder: IsolatedDecoder) -> None:
    compressed, native = (corpus.read(corpus.path_of(each)) for each in (name, reference_name))
    given = decoder.samples(compressed.dataset, compressed.meta.transfer_syntax)
    assert given == decoder.samples(native.dataset, native.meta.transfer_syntax) != b""


def test_planar_samples_are_put_by_pixel(decoder: IsolatedDecoder) -> None:
    planes, pixels = (corpus.read(corpus.path_of(name)) for name in ("color-pl.dcm", "color-px.dcm"))
    expected = pydicom.dcmread(planes.path).pixel_array.tobytes()
    assert decoder.samples(planes.dataset, planes.meta.transfer_syntax) == expected
    assert decoder.samples(pixels.dataset, pixels.meta.transfer_syntax) == pydicom.dcmread(pixels.path).PixelData


# -- streams that lie, bomb and kill ----------------------------------------------------------------------------------


def attributes(rows: int = 64, columns: int = 64) -> InstanceAttributes:
    return InstanceAttributes(
        sop_class_uid="1.2",
        sop_instance_uid="1.3",
        rows=rows,
        columns=columns,
        bits_allocated=16,
        bits_stored=16,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
    )


def test_a_stream_that_forgot_the_sign_gets_it_back() -> None:
    raw = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # twelve bits as JPEG-LS writes them, unsigned
    instance = replace(attributes(), bits_stored=12, pixel_representation=1)
    samples = np.frombuffer(decode_native(imagecodecs.jpegls_encode(raw), JPEG_LS_LOSSLESS, instance), "<i2")
    assert samples.tolist() == [*range(2048), *range(-2048, 0)]


STREAMS = ["empty", "a JPEG's beginning", "a JPEG 2000's beginning", "zeros"]


@pytest.mark.parametrize("syntax", sorted(DECODABLE))
@pytest.mark.parametrize("stream", [b"", b"\xff\xd8\xff", b"\xff\x4f\xff\x51" + bytes(60), bytes(64)], ids=STREAMS)
def test_broken_streams_fail_in_words_of_ours(syntax: str, stream: bytes) -> None:
    with pytest.raises(DecodeFailed):
        decode_native(stream, syntax, attributes())


def claiming(size: int) -> dict[str, bytes]:
    """Small streams whose headers claim `size` by `size` samples (JPEG: 65535 at most)."""
    picture = np.zeros((64, 64), np.uint16)
    streams = {HTJ2K_LOSSLESS_RPCL: encode_frame(picture), JPEG_LS_LOSSLESS: imagecodecs.jpegls_encode(picture)}
    streams[JPEG_2000_LOSSLESS] = imagecodecs.jpeg2k_encode(picture, reversible=True, codecformat="J2K")
    streams[JPEG_LOSSLESS] = imagecodecs.ljpeg_encode(picture)
    for syntax, frame_header in ((JPEG_LS_LOSSLESS, b"\xff\xf7"), (JPEG_LOSSLESS, b"\xff\xc3")):
        stream, at = bytearray(streams[syntax]), bytes(streams[syntax]).index(frame_header)
        stream[at + 5 : at + 9] = min(size, 0xFFFF).to_bytes(2) * 2
        streams[syntax] = bytes(stream)
    for syntax in (HTJ2K_LOSSLESS_RPCL, JPEG_2000_LOSSLESS):
        stream = bytearray(streams[syntax])
        stream[8:16] = stream[24:32] = size.to_bytes(4) * 2  # the image's and the tile's size (15444-1 A.5.1)
        streams[syntax] = bytes(stream)
    return streams


@pytest.mark.parametrize("size", [65535, 0x7FFFFFFF])
@pytest.mark.parametrize("syntax", [HTJ2K_LOSSLESS_RPCL, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_LOSSLESS])
def test_a_stream_that_claims_a_huge_picture_costs_no_more_than_the_limit(
    syntax: str, size: int, strict: IsolatedDecoder
) -> None:
    with pytest.raises((DecodeFailed, Unfileable)):
        strict.frame(claiming(size)[syntax], syntax, attributes())
    assert decodes(strict)


def test_a_picture_of_another_size_is_refused(decoder: IsolatedDecoder) -> None:
    dataset, made = transcoded()
    offset, size = made.frames[0]
    stream = b"".join(made.parts)[offset : offset + size]
    with pytest.raises(DecodeFailed):
        decoder.frame(stream, HTJ2K_LOSSLESS_RPCL, attributes(rows=63))
    assert len(decoder.frame(stream, HTJ2K_LOSSLESS_RPCL, describe(dataset, EXPLICIT_LE).instance)) == 8192


def test_rows_times_columns_beyond_the_limit_are_refused_at_once(decoder: IsolatedDecoder) -> None:
    with pytest.raises(Unfileable) as refusal:
        decoder.frame(b"x", HTJ2K_LOSSLESS_RPCL, attributes(rows=65535, columns=65535))
    assert refusal.value.reason is QuarantineReason.DECODE_LIMIT


def test_an_unknown_syntax_and_no_dicom_fail(decoder: IsolatedDecoder) -> None:
    with pytest.raises(DecodeFailed):
        decoder.frame(b"x", "1.2.840.10008.1.2.4.100", attributes())
    with pytest.raises(DecodeFailed):
        decoder.to_explicit_le(b"no DICOM file")


def _dies(codestreams: Sequence[bytes], transfer_syntax: str, instance: InstanceAttributes) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def _stalls(codestreams: Sequence[bytes], transfer_syntax: str, instance: InstanceAttributes) -> bytes:
    while True:
        signal.pause()


def _grows(codestreams: Sequence[bytes], transfer_syntax: str, instance: InstanceAttributes) -> bytes:
    return bytes(resource.getrlimit(resource.RLIMIT_AS)[0])


@pytest.fixture(scope="module")
def strict() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(processes=1, timeout_s=1, memory_max_bytes=1 << 30)
    yield decoder
    decoder.close()


def decodes(decoder: IsolatedDecoder) -> bool:
    dataset, made = transcoded()
    offset, size = made.frames[0]
    stream = b"".join(made.parts)[offset : offset + size]
    return len(decoder.frame(stream, made.transfer_syntax, describe(dataset, EXPLICIT_LE).instance)) == 8192


@pytest.mark.parametrize("fate", [_stalls, _grows])
def test_a_child_over_its_limits_is_told_and_replaced(
    fate: object, strict: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decodes(strict)
    monkeypatch.setattr(instances.decode, "_decode_frames", fate)
    with pytest.raises(Unfileable) as refusal:
        strict.frame(b"x", HTJ2K_LOSSLESS_RPCL, attributes())
    assert refusal.value.reason is QuarantineReason.DECODE_LIMIT
    monkeypatch.undo()
    assert decodes(strict)


def test_a_child_that_dies_is_told_and_replaced(strict: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances.decode, "_decode_frames", _dies)
    with pytest.raises(DecodeFailed):
        strict.frame(b"x", HTJ2K_LOSSLESS_RPCL, attributes())
    monkeypatch.undo()
    assert decodes(strict)


def test_a_closed_decoder_refuses() -> None:
    decoder = IsolatedDecoder(processes=1, timeout_s=5, memory_max_bytes=1 << 30)
    decoder.close()
    with pytest.raises(DecodeFailed):
        decoder.frame(b"x", HTJ2K_LOSSLESS_RPCL, attributes())
    assert split(part10(mr_dataset()))[1] == decoder.to_explicit_le(part10(mr_dataset()))
