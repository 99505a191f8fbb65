"""A message as Kafka carries it, beside the CloudEvents SDK; what is damaged or foreign is none of ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat

from broker.kafka.binding import CHECK, Headers, from_kafka, to_headers
from schemas.message import Message
from tests.broker.messages import claim_check, decision, instance

MESSAGES = [instance(1), instance(2, size_bytes=100_000), claim_check(3), decision(4)]


def headers_of(message: Message) -> dict[str, bytes]:
    return {name: content if isinstance(content, bytes) else b"" for name, content in to_headers(message)}


@pytest.mark.parametrize("message", MESSAGES)
def test_the_cloudevents_sdk_reads_what_we_write(message: Message) -> None:
    headers, key = headers_of(message), message.attributes.key
    event = from_binary_event(KafkaMessage(headers=headers, key=key, value=bytes(message.value)), JSONFormat())

    attributes = message.attributes
    assert (event.get_id(), event.get_source(), event.get_type()) == (attributes.id, attributes.source, attributes.type)
    assert event.get_specversion() == "1.0"
    moment = event.get_time()
    assert moment is not None
    assert moment.isoformat() == "2026-03-01T08:15:00+00:00"
    kind = "application/json" if message is MESSAGES[3] else "application/dicom"
    assert event.get_datacontenttype() == kind
    assert event.get_extension("tenant") == "default"
    assert event.get_extension("lane") == "routine"
    assert (event.get_extension("studyuid") or "") == attributes.study_uid


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_written_is_read(message: Message) -> None:
    assert from_kafka(to_headers(message), message.value) == message


@pytest.mark.parametrize("message", MESSAGES)
def test_no_header_of_ours_may_change(message: Message) -> None:
    given = headers_of(message)
    for name in given:
        if name.startswith("ce_") or name == CHECK:
            damaged = {**given, name: b"0" + given[name][1:] if given[name][:1] != b"0" else b"1" + given[name][1:]}
            assert from_kafka(list(damaged.items()), message.value) is None, name


@pytest.mark.parametrize("message", [MESSAGES[0], MESSAGES[3]])
def test_no_byte_of_the_value_may_change_or_be_missing(message: Message) -> None:
    value = bytes(message.value)
    for damaged in (value[:-1], value + b"0", b"0" + value[1:], b""):
        assert from_kafka(to_headers(message), damaged) is None


def test_an_instance_without_our_check_is_verified_by_its_own_checksum() -> None:
    """Another publisher of CloudEvents need not know our header."""
    message = MESSAGES[0]
    headers = [(name, content) for name, content in to_headers(message) if name != CHECK]
    assert from_kafka(headers, message.value) == message
    assert from_kafka(headers, b"x" + bytes(message.value)[1:]) is None
    assert from_kafka(headers, bytes(message.value)[1:]) is None


@pytest.mark.parametrize("headers", [None, [], [("ce_id", b"1")], [("ce_id", b"\xff")], [("x", None)]])
def test_a_foreign_message_is_none_of_ours(headers: Headers | None) -> None:
    assert from_kafka(headers, b"hello") is None


def test_titles_beyond_ascii_survive() -> None:
    message = replace(MESSAGES[0], attributes=replace(MESSAGES[0].attributes, calling_ae="RÖNTGEN"))
    assert from_kafka(to_headers(message), message.value) == message
