"""A stretch of a real topic: found by time and by offset, read beside the workers, without a trace."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from broker.kafka import KafkaConfiguration
from broker.kafka.binding import to_headers
from broker.kafka.stretch import SILENCE_MAX_S, Mark, Span, StretchReader, Torn, find_spans
from broker.kafka.topics import LogTopics
from broker.log import Taken
from broker.opening import kafka_configuration
from region.kafka import KafkaBroker
from runtime.errors import Misconfigured, Retryable
from runtime.settings import WorkerSettings
from schemas.message import Lane
from tests.broker.contract import TIMEOUT_S, numbers, take_all
from tests.broker.messages import instance
from tests.broker.test_kafka_damage import put, put_foreign
from tests.broker.test_kafka_group import fill, member
from tests.region.guarded import USER, Guarded
from tests.region.kafka import fresh, frozen
from tests.waiting import until


def spans(log: KafkaConfiguration, since: Mark, until: Mark | None = None) -> Sequence[Span]:
    return find_spans(log, Lane.ROUTINE, since, until)


def read(log: KafkaConfiguration, found: Sequence[Span]) -> tuple[list[Taken], list[Torn]]:
    taken: list[Taken] = []
    with closing(StretchReader(log, found)) as reader:
        while not reader.is_done:
            taken += reader.take(max_messages=7, max_bytes=10**6, wait_s=0.2)
        return taken, reader.torn


def commit(log: KafkaConfiguration, count: int) -> None:
    """As a worker does it, of so many messages."""
    with member(log) as worker:
        worker.commit([one.position for one in take_all(worker, count)])


def test_what_the_workers_have_committed_is_read_and_the_rest_is_left_to_them(kafka: KafkaBroker) -> None:
    log = fresh(kafka, partitions=3)
    fill(log, range(60))
    assert [span.waiting for span in spans(log, 0)].count(0) == 0
    commit(log, 60)
    fill(log, range(60, 65))
    before = LogTopics(log).reach(Lane.ROUTINE)

    found = spans(log, 0)
    taken, torn = read(log, found)
    assert (sorted(numbers(taken)), torn, sum(span.waiting for span in found)) == (list(range(60)), [], 5)
    for span in found:
        offsets = [one.position.offset for one in taken if one.position.stream == span.stream]
        assert offsets == list(range(span.end))
    assert LogTopics(log).reach(Lane.ROUTINE) == before


def test_ends_are_moments_or_offsets_of_partitions(kafka: KafkaBroker) -> None:
    log = fresh(kafka, partitions=2)
    fill(log, range(20))
    between = datetime.now(UTC)
    while datetime.now(UTC) - between < timedelta(milliseconds=2):  # timestamps are whole milliseconds
        pass
    fill(log, range(20, 30))
    commit(log, 30)
    hour = timedelta(hours=1)

    assert sorted(numbers(read(log, spans(log, between - hour, between))[0])) == list(range(20))
    assert sorted(numbers(read(log, spans(log, between, between + hour))[0])) == list(range(20, 30))
    assert read(log, spans(log, between + hour))[0] == []
    (span,) = spans(log, {1: 2}, {1: 4})
    assert [one.position.offset for one in read(log, [span])[0]] == [2, 3]
    for begin, end in (({1: 2}, {0: 4}), ({2: 0}, None)):
        with pytest.raises(Misconfigured, match="partition"):
            spans(log, begin, end)
    with pytest.raises(Misconfigured, match="topics apply"):
        find_spans(log.__class__(bootstrap=log.bootstrap, prefix="none"), Lane.BULK, 0, None)


def test_what_was_deleted_is_told(kafka: KafkaBroker) -> None:
    log = fresh(kafka)
    fill(log, range(10))
    commit(log, 10)
    topic = log.topic(Lane.ROUTINE)
    LogTopics(log).delete_before({TopicPartition(topic, 0): 4})

    (by_offset,) = spans(log, 1)
    assert (by_offset.deleted, by_offset.first, by_offset.messages) == (3, 4, 6)
    assert [span.deleted for span in spans(log, 0, 3)] == [3]
    assert [span.deleted for span in spans(log, 4)] == [0]
    now, hour = datetime.now(UTC), timedelta(hours=1)
    # What lay before the first message nobody knows, unless that one is older than the stretch.
    assert [(span.may_lack, span.deleted) for span in spans(log, now - hour)] == [(True, 0)]
    assert [span.may_lack for span in spans(log, now + hour)] == [False]
    LogTopics(log).delete_before({TopicPartition(topic, 0): 10})
    assert [(span.may_lack, span.messages) for span in spans(log, now - hour, now)] == [(True, 0)]


def test_what_is_torn_is_told_and_what_ends_with_it_is_read_to_its_end(kafka: KafkaBroker) -> None:
    log = fresh(kafka)
    put(log, instance(0))
    put(log, instance(1), b"rotten" + bytes(instance(1).value)[6:])
    put(log, instance(2))
    put_foreign(log, b"hello")
    commit(log, 2)
    (span,) = spans(log, 0)
    taken, torn = read(log, [replace(span, end=4)])
    assert numbers(taken) == [0, 2]
    assert torn == [Torn(stream=span.stream, offset=1), Torn(stream=span.stream, offset=3)]


@pytest.mark.parametrize(("end", "given"), [(1, [0]), (2, [0]), (3, [0, 1]), (4, [0, 1])])
def test_where_an_offset_is_no_message_the_end_is_found_all_the_same(
    kafka: KafkaBroker, end: int, given: list[int]
) -> None:
    """A stranger's transactions leave marks between messages and behind the last one."""
    log = fresh(kafka)
    producer = Producer({"bootstrap.servers": log.bootstrap, "transactional.id": log.prefix})
    producer.init_transactions(TIMEOUT_S)
    for number in range(2):
        producer.begin_transaction()
        one = instance(number)
        producer.produce(log.topic(Lane.ROUTINE), bytes(one.value), one.attributes.key, headers=to_headers(one))
        producer.commit_transaction(TIMEOUT_S)
    (span,) = spans(log, 0)
    taken, _ = read(log, [replace(span, end=end)])
    assert numbers(taken) == given


def test_a_silent_broker_ends_it(kafka: KafkaBroker) -> None:
    log = fresh(kafka)
    fill(log, range(3))
    commit(log, 3)
    found = spans(log, 0)
    with frozen(kafka), pytest.raises(Retryable, match="gave nothing"):
        reader = StretchReader(log, found, silence_max_s=0.3)
        while not reader.is_done:
            reader.take(max_messages=1, max_bytes=1, wait_s=0.1)
    reader.close()


def test_what_is_done_between_two_takes_is_no_silence_of_the_broker(kafka: KafkaBroker) -> None:
    log = fresh(kafka)
    fill(log, range(3))
    commit(log, 3)
    now_s = 0.0
    taken: list[Taken] = []
    with closing(StretchReader(log, spans(log, 0), monotonic_s=lambda: now_s)) as reader:
        with frozen(kafka):
            for _ in range(2):
                assert not reader.take(max_messages=1, max_bytes=1, wait_s=0.01)
                now_s += SILENCE_MAX_S + 1
        while not reader.is_done:
            taken += reader.take(max_messages=3, max_bytes=10**6, wait_s=10.0)
    assert numbers(taken) == [0, 1, 2]


def test_what_a_user_needs_for_it_is_named_where_it_is_refused(guarded: Guarded) -> None:
    """docs/REGION.md: beside what commands need, Read on the topics and on a group of its own."""
    prefix = f"t-{uuid4().hex[:12]}"
    log, mine = (
        kafka_configuration(WorkerSettings(**guarded.by_password(kafka_user=user, kafka_topic_prefix=prefix)))
        for user in (USER, "web-1")
    )
    LogTopics(log).apply(partitions=1, replication=1)
    fill(log, range(3))
    commit(log, 3)
    admin = AdminClient({"bootstrap.servers": guarded.broker.bootstrap})

    def allow(kind: ResourceType, name: str, operation: AclOperation) -> None:
        given = (operation, AclPermissionType.ALLOW)
        rule = AclBinding(kind, name, ResourcePatternType.LITERAL, "User:web-1", "*", *given)
        admin.create_acls([rule])[rule].result(TIMEOUT_S)

    for name in LogTopics(log).names:
        allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE)
    allow(ResourceType.TOPIC, log.topic(Lane.ROUTINE), AclOperation.READ)
    allow(ResourceType.GROUP, log.group(Lane.ROUTINE), AclOperation.DESCRIBE)

    def is_refused() -> bool:
        try:
            read(mine, spans(mine, 0))
        except Misconfigured as error:
            return f"refuses the group {prefix}-replay" in str(error)
        return False

    until(is_refused, timeout_s=TIMEOUT_S)  # few messages may come before the refusal
    allow(ResourceType.GROUP, f"{prefix}-replay", AclOperation.READ)
    until(lambda: not is_refused(), timeout_s=TIMEOUT_S)
    assert numbers(read(mine, spans(mine, 0))[0]) == [0, 1, 2]
