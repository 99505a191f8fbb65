"""What is written by one process is read back equal by another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decisions import DiscardQuarantined, ReplayQuarantined, UseVersion, decode_decision, encode_decision
from schemas.identifiers import is_conforming_uid, is_safe_uid, is_tenant
from schemas.message import INSTANCE_RECEIVED, Lane, MessageAttributes
from schemas.reasons import KeptReason, QuarantineReason, RejectReason, WarningCode
from schemas.record import (
    InstanceAttributes,
    InstanceRecord,
    MemberLocation,
    PatientAttributes,
    PlacedRecord,
    QuarantineRecord,
    SeriesAttributes,
    StudyAttributes,
    decode_placed,
    encode_placed,
)

attributes = st.builds(
    MessageAttributes,
    id=st.uuids().map(str),
    type=st.just(INSTANCE_RECEIVED),
    source=st.just("/edge/host"),
    time=st.just("2026-03-01T08:15:00.000000Z"),
    tenant=st.just("default"),
    lane=st.sampled_from(Lane),
    calling_ae=st.text(max_size=16),
    size_bytes=st.integers(0, 2**40),
    data_ref=st.sampled_from(["", "default/x.tar"]),
)
locations = st.builds(
    MemberLocation, segment=st.just("default/a.tar"), offset=st.integers(0, 2**50), size_bytes=st.integers(0, 2**50)
)
instances = st.builds(
    InstanceRecord,
    attributes=attributes,
    patient=st.builds(PatientAttributes, name=st.text()),
    study=st.builds(StudyAttributes, study_instance_uid=st.just("1.2"), study_description=st.text()),
    series=st.builds(SeriesAttributes, series_instance_uid=st.just("1.2.3")),
    instance=st.builds(InstanceAttributes, sop_class_uid=st.just("1.2.840"), sop_instance_uid=st.just("1.2.3.4")),
    wire_sha256=st.just("00" * 32),
    wire_size_bytes=st.integers(0, 2**40),
    recipe=st.sampled_from([{}, {"codec": "htj2k", "frames": 1}]),
    kept_reason=st.none() | st.sampled_from(KeptReason),
    warnings=st.lists(st.sampled_from(WarningCode)).map(tuple),
    frames=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))).map(tuple),
)
quarantined = st.builds(
    QuarantineRecord, attributes=attributes, reason=st.sampled_from(QuarantineReason), detail=st.text()
)


@given(attributes)
def test_message_attributes_survive_the_headers(given_attributes: MessageAttributes) -> None:
    assert MessageAttributes.from_headers(given_attributes.to_headers()) == given_attributes


@given(st.one_of(instances, quarantined), locations)
def test_an_index_line_gives_back_the_record(record: InstanceRecord | QuarantineRecord, where: MemberLocation) -> None:
    placed = PlacedRecord(record=record, location=where)
    line = encode_placed(placed)
    assert b"\n" not in line
    assert decode_placed(line) == placed


@pytest.mark.parametrize(
    "decision",
    [
        UseVersion(tenant="a", sop_instance_uid="1.2", wire_sha256="00"),
        ReplayQuarantined(tenant="a", quarantine_id="x"),
        DiscardQuarantined(tenant="a", quarantine_id="x"),
    ],
)
def test_a_decision_survives_the_log(decision: UseVersion | ReplayQuarantined | DiscardQuarantined) -> None:
    assert decode_decision(encode_decision(decision)) == decision


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[]", b'{"decision":"erase"}', b'{"decision":"use_version"}'])
def test_rubbish_is_no_decision_and_no_index_line(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="not a decision"):
        decode_decision(rubbish)
    with pytest.raises(ValueError, match="not an index line"):
        decode_placed(rubbish)


def test_every_reject_reason_has_an_answer_in_both_protocols() -> None:
    for reason in RejectReason:
        assert reason.dimse_status != 0
        assert 400 <= reason.http_status < 600


def test_uids_that_could_leave_a_folder_are_not_safe() -> None:
    for uid in ("", ".", "..", "../etc", "1.2/3", "1..2", "1.2\0", "a" * 129, ".1", "1.2 "):
        assert not is_safe_uid(uid), uid
    for uid in ("1.2.840", "2.25.1", "01.02", "abc-1_2"):
        assert is_safe_uid(uid), uid
    assert is_conforming_uid("1.2.840.0")
    assert not is_conforming_uid("1.02")


def test_tenants() -> None:
    assert is_tenant("chu-nord")
    assert not is_tenant("journal")
    assert not is_tenant("Chu")
