import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomweb.metadata import dataset_json
from instances.description import Description, describe
from instances.elements import DEPTH_MAX
from instances.syntax import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, JPEG_2000_LOSSLESS
from runtime.errors import Unfileable
from schemas.reasons import QuarantineReason, WarningCode
from tests.datasets import PLANTED, ROOT, dataset_bytes, mr_dataset
from tests.instances import corpus, hostile

NATIVE_SYNTAXES = [EXPLICIT_LE, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def reason_of(dataset: bytes, syntax: str = EXPLICIT_LE) -> QuarantineReason:
    with pytest.raises(Unfileable) as refusal:
        describe(dataset, syntax)
    assert not any(value in str(refusal.value) for value in PLANTED.values())
    return refusal.value.reason


def full_dataset() -> Dataset:
    dataset = mr_dataset(IssuerOfPatientID="HOSPITAL A", InstitutionName="Nord", ReferringPhysicianName="REF^ER")
    dataset.update({"ProtocolName": "ax T1", "BodyPartExamined": "BRAIN", "StationName": "MR1"})
    dataset.update({"SeriesDate": "20260302", "SeriesTime": "0900", "PerformedProcedureStepStartDate": "20260303"})
    dataset.PerformedProcedureStepStartTime = "1000"
    issuer, request = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = "RIS1"
    request.ScheduledProcedureStepID = "SPS7"
    request.RequestedProcedureID = "RP8"
    dataset.IssuerOfAccessionNumberSequence = [issuer]
    dataset.RequestAttributesSequence = [request]
    return dataset


@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES)
def test_gives_what_the_catalog_keeps(syntax: str) -> None:
    described = describe(dataset_bytes(full_dataset(), syntax), syntax)
    patient, study, series, instance = described.patient, described.study, described.series, described.instance
    assert patient.patient_id == PLANTED["PatientID"]
    assert (patient.issuer, patient.name, patient.birth_date, patient.sex) == (
        *("HOSPITAL A", PLANTED["PatientName"], PLANTED["PatientBirthDate"], "O"),
    )
    assert (study.study_instance_uid, study.study_date, study.study_time) == (f"{ROOT}.1", "20260301", "081500")
    assert (study.study_id, study.accession_number, study.accession_issuer) == ("1", "ACC1", "RIS1")
    assert (study.study_description, study.institution_name) == ("Brain", "Nord")
    assert study.referring_physician_name == "REF^ER"
    assert (series.series_instance_uid, series.modality, series.series_number) == (f"{ROOT}.1.1", "MR", "1")
    assert (series.series_description, series.series_date, series.series_time) == ("T1 series 1", "20260302", "0900")
    assert (series.body_part_examined, series.protocol_name, series.station_name) == ("BRAIN", "ax T1", "MR1")
    assert (series.pps_start_date, series.pps_start_time) == ("20260303", "1000")
    assert (series.scheduled_procedure_step_id, series.requested_procedure_id) == ("SPS7", "RP8")
    assert (instance.sop_instance_uid, instance.instance_number) == (f"{ROOT}.1.1.1", "1")
    assert (instance.rows, instance.columns, instance.bits_allocated, instance.bits_stored) == (64, 64, 16, 12)
    assert (instance.samples_per_pixel, instance.pixel_representation) == (1, 0)
    assert instance.photometric_interpretation == "MONOCHROME2"
    assert described.warnings == ()


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_the_pixel_layout_points_at_the_frames(syntax: str) -> None:
    encoded = dataset_bytes(mr_dataset(frames=3), syntax)
    pixels = describe(encoded, syntax).pixels
    assert pixels is not None
    assert [size for _, size in pixels.frames] == [64 * 64 * 2] * 3
    assert pixels.frames[0][0] == pixels.value_offset
    assert pixels.end_offset == len(encoded) == pixels.value_offset + pixels.value_size_bytes


def test_a_deflated_data_set_has_no_offsets() -> None:
    described = describe(dataset_bytes(mr_dataset(), DEFLATED_LE), DEFLATED_LE)
    assert described.pixels is None
    assert described.instance.rows == 64


# -- warnings: filed all the same -------------------------------------------------------------------------------------


def warnings_of(dataset: bytes, syntax: str = EXPLICIT_LE) -> tuple[WarningCode, ...]:
    return describe(dataset, syntax).warnings


def test_truncated_pixels_are_a_warning() -> None:
    described = describe(dataset_bytes(mr_dataset())[:-10], EXPLICIT_LE)
    assert described.warnings == (WarningCode.TRUNCATED,)
    assert described.pixels is None


def test_a_wrong_pixel_length_is_a_warning() -> None:
    assert warnings_of(dataset_bytes(mr_dataset(Rows=63))) == (WarningCode.PIXEL_LENGTH_MISMATCH,)


def test_an_absurd_picture_is_a_warning_and_costs_nothing() -> None:
    dataset = mr_dataset(rows=4, columns=4, Rows=65535, Columns=65535, NumberOfFrames=999_999_999)
    assert warnings_of(dataset_bytes(dataset)) == (WarningCode.PIXEL_LENGTH_MISMATCH,)


def test_an_odd_uid_is_a_warning() -> None:
    dataset = dataset_bytes(mr_dataset()).replace(f"{ROOT}.1.1.1".encode(), f"{ROOT}.1.1.A".encode())
    assert warnings_of(dataset) == (WarningCode.UID_NOT_CONFORMING,)


@pytest.mark.parametrize("tail", [b"\0" * 64, b"\x01", b"garbage"])
def test_trailing_bytes_are_a_warning(tail: bytes) -> None:
    assert warnings_of(dataset_bytes(mr_dataset()) + tail) == (WarningCode.TRAILING_BYTES,)


def test_data_set_trailing_padding_is_none() -> None:
    assert warnings_of(dataset_bytes(mr_dataset()) + hostile.element(0xFFFCFFFC, "OB", bytes(500))) == ()


@pytest.mark.parametrize("declared", [None, ""])
def test_without_a_declared_character_set_names_read_as_latin_1_with_a_warning(declared: str | None) -> None:
    """As the metadata gives them, so that a name that is shown can be searched for."""
    dataset = mr_dataset(1, PatientName="X" * 12)
    if declared is not None:
        dataset.SpecificCharacterSet = declared
    wire = dataset_bytes(dataset).replace(b"X" * 12, "Müller^Jörg ".encode("latin_1"))
    described = describe(wire, EXPLICIT_LE)
    assert described.patient.name == "Müller^Jörg"
    assert described.warnings == (WarningCode.CHARACTER_SET,)
    shown = dataset_json(wire, EXPLICIT_LE, lambda path: path)["00100010"]
    assert shown == {"vr": "PN", "Value": [{"Alphabetic": described.patient.name}]}


def test_a_wrong_character_set_is_a_warning() -> None:
    raw = dataset_bytes(mr_dataset(SpecificCharacterSet="ISO_IR 192")).replace(b"Brain ", b"Br\xe4in ")
    described = describe(raw, EXPLICIT_LE)
    assert described.warnings == (WarningCode.CHARACTER_SET,)
    assert described.study.study_description == "Br\N{REPLACEMENT CHARACTER}in"


def test_a_count_that_is_none_is_a_warning() -> None:
    raw = dataset_bytes(mr_dataset(NumberOfFrames=1)).replace(
        b"\x28\x00\x08\x00IS\x02\x001 ", b"\x28\x00\x08\x00IS\x02\x00-1"
    )
    assert WarningCode.VALUE_UNREADABLE in warnings_of(raw)


def test_native_pixels_in_a_compressed_syntax_are_a_warning() -> None:
    assert warnings_of(dataset_bytes(mr_dataset()), JPEG_2000_LOSSLESS) == (WarningCode.ENCAPSULATION_BROKEN,)


def test_a_broken_fragment_is_a_warning() -> None:
    real = corpus.read(corpus.path_of("MR_small_RLE.dcm"))
    pixels = describe(real.dataset, real.meta.transfer_syntax).pixels
    assert pixels is not None
    raw = bytearray(real.dataset)
    at = pixels.fragments[0][0] - 8
    raw[at : at + 4] = b"\x01\x02\x03\x04"
    assert WarningCode.ENCAPSULATION_BROKEN in warnings_of(bytes(raw), real.meta.transfer_syntax)


def test_a_value_beyond_the_limit_is_cut_with_a_warning() -> None:
    described = describe(hostile.element(0x00081030, "LO", b"x" * 5000) + dataset_bytes(mr_dataset()), EXPLICIT_LE)
    assert described.warnings == (WarningCode.VALUE_UNREADABLE,)
    assert len(described.study.study_description) == 4096


# -- what cannot be filed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_cannot_be_filed(keyword: str) -> None:
    dataset = mr_dataset()
    setattr(dataset, keyword, "")
    dataset[keyword].value = ""
    assert reason_of(dataset_bytes_without_meta(dataset)) is QuarantineReason.MISSING_UID


def dataset_bytes_without_meta(dataset: Dataset) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/3", "1..2", "1.2 .3", "\x7f1"])
def test_an_unsafe_uid_cannot_be_filed(uid: str) -> None:
    wanted = f"{ROOT}.1.1.1".encode()
    raw = dataset_bytes(mr_dataset()).replace(wanted, uid.encode().ljust(len(wanted), b"\0"))
    assert reason_of(raw) is QuarantineReason.UNSAFE_UID


def test_a_media_directory_cannot_be_filed() -> None:
    real = corpus.read(corpus.path_of("DICOMDIR-nopatient"))
    assert reason_of(bytes(real.dataset), real.meta.transfer_syntax) is QuarantineReason.DICOMDIR


@pytest.mark.parametrize("raw", [b"", b"not a data set at all, rather a sentence", b"\xff" * 64])
def test_what_is_no_data_set_cannot_be_filed(raw: bytes) -> None:
    assert reason_of(raw) is QuarantineReason.PARSE_FAILED


@pytest.mark.parametrize("defined", [False, True])
def test_nesting_is_limited(defined: bool) -> None:
    assert describe(hostile.with_nested(DEPTH_MAX, defined=defined), EXPLICIT_LE).warnings == ()
    for depth in (DEPTH_MAX + 1, 1000):
        assert reason_of(hostile.with_nested(depth, defined=defined)) is QuarantineReason.TOO_DEEP


def test_nesting_is_limited_where_nothing_says_sequence() -> None:
    hidden = hostile.nested(1000, defined=True, implicit=True)[8:]
    raw = hostile.element(0x00091010, "UN", hidden)
    plain = dataset_bytes(mr_dataset(rows=4, columns=4))
    assert reason_of(raw + plain) is QuarantineReason.TOO_DEEP


def test_nesting_is_limited_in_implicit_data_sets() -> None:
    plain = dataset_bytes(mr_dataset(rows=4, columns=4), IMPLICIT_LE)
    for defined in (False, True):
        deep = hostile.nested(DEPTH_MAX, defined=defined, implicit=True)
        assert describe(deep + plain, IMPLICIT_LE).warnings == ()
        deep = hostile.nested(1000, defined=defined, implicit=True)
        assert reason_of(deep + plain, IMPLICIT_LE) is QuarantineReason.TOO_DEEP


def test_a_deflate_bomb_is_stopped() -> None:
    assert reason_of(hostile.deflate_bomb(), DEFLATED_LE) is QuarantineReason.DECODE_LIMIT


def test_more_elements_than_the_limit_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.elements.ELEMENTS_MAX", 500)
    assert reason_of(dataset_bytes(mr_dataset()) + hostile.element(0x7FE10010, "LO", b"") * 500) is (
        QuarantineReason.DECODE_LIMIT
    )


# -- whatever the bytes -----------------------------------------------------------------------------------------------

SYNTAXES = st.sampled_from([EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, JPEG_2000_LOSSLESS, "", "1.2.3.4"])


def outcome(raw: bytes, syntax: str) -> Description | QuarantineReason:
    try:
        return describe(raw, syntax)
    except Unfileable as error:
        return error.reason


@given(st.binary(max_size=600), SYNTAXES)
def test_any_bytes_are_described_or_unfileable(raw: bytes, syntax: str) -> None:
    outcome(raw, syntax)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_real_file_is_described_or_unfileable(data: st.DataObject) -> None:
    real, _ = data.draw(st.sampled_from([pair for pair in corpus.fileable() if len(pair[0].dataset) < 20_000]))
    raw = bytearray(real.dataset)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    outcome(bytes(raw), data.draw(st.sampled_from([real.meta.transfer_syntax, EXPLICIT_LE, IMPLICIT_LE])))


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_truncated_anywhere_it_is_described_with_a_warning_or_unfileable(syntax: str) -> None:
    whole = dataset_bytes(full_dataset_small(), syntax)
    complete = describe(whole, syntax)
    for size in range(len(whole)):
        cut = outcome(whole[:size], syntax)
        if isinstance(cut, Description):
            assert cut.instance.sop_instance_uid == complete.instance.sop_instance_uid
            assert cut.warnings or cut.pixels is None
        else:
            assert cut in (QuarantineReason.PARSE_FAILED, QuarantineReason.MISSING_UID)


def full_dataset_small() -> Dataset:
    dataset = full_dataset()
    dataset.Rows = dataset.Columns = 4
    dataset.PixelData = bytes(range(32))
    return dataset


def test_every_real_file_is_described_or_unfileable() -> None:
    outcomes = [outcome(bytes(real.dataset), real.meta.transfer_syntax) for real in corpus.readable()]
    assert sum(isinstance(result, Description) for result in outcomes) > 200
    assert {result for result in outcomes if isinstance(result, QuarantineReason)} == {
        *(QuarantineReason.DICOMDIR, QuarantineReason.MISSING_UID, QuarantineReason.PARSE_FAILED)
    }
