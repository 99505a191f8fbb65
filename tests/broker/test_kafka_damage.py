"""What is damaged, foreign or missing in a real topic: set aside or told in a sentence, never skipped in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient

from broker.kafka import KafkaConfiguration, KafkaConsumer, KafkaPublisher
from broker.kafka.binding import to_headers
from broker.kafka.topics import LogTopics
from broker.kafka.torn import FROM
from region.kafka import KafkaBroker
from runtime.errors import Fatal, Misconfigured, Retryable
from schemas.message import Lane, Message
from tests.broker.contract import TIMEOUT_S, numbers, publish, take_all
from tests.broker.messages import instance
from tests.broker.test_kafka_group import fill, member
from tests.region.kafka import fresh
from tests.waiting import until


@pytest.fixture
def log(kafka: KafkaBroker) -> KafkaConfiguration:
    return fresh(kafka)


@pytest.fixture
def consumer(log: KafkaConfiguration) -> Iterator[KafkaConsumer]:
    with member(log) as consumer:
        yield consumer


def put(log: KafkaConfiguration, message: Message, value: bytes | None = None) -> None:
    """Write a message as it is, or with another value, behind the publisher's back."""
    producer = Producer({"bootstrap.servers": log.bootstrap})
    content = bytes(message.value) if value is None else value
    producer.produce(log.topic(Lane.ROUTINE), content, message.attributes.key, headers=to_headers(message))
    assert producer.flush(TIMEOUT_S) == 0


def put_foreign(log: KafkaConfiguration, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": log.bootstrap})
    producer.produce(log.topic(Lane.ROUTINE), value)
    assert producer.flush(TIMEOUT_S) == 0


def torn(log: KafkaConfiguration, expected: int) -> list[Record]:
    """What was set aside."""
    reader = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "operator"})
    reader.assign([TopicPartition(log.torn_topic, 0, 0)])
    found: list[Record] = []
    until(lambda: found.extend(reader.consume(10, 0.1)) or len(found) >= expected)
    reader.close()
    return found


def test_damaged_and_foreign_messages_are_set_aside_and_the_lane_goes_on(
    log: KafkaConfiguration, consumer: KafkaConsumer
) -> None:
    put(log, instance(0))
    put(log, instance(1), b"rotten" + bytes(instance(1).value)[6:])
    put_foreign(log, b"hello")
    put(log, instance(2))

    taken = take_all(consumer, 2)
    consumer.commit([one.position for one in taken])

    assert numbers(taken) == [0, 2]
    until(lambda: consumer.lag() == {Lane.ROUTINE: 0})
    kept = torn(log, 2)
    assert [record.value() for record in kept] == [b"rotten" + bytes(instance(1).value)[6:], b"hello"]
    headers = dict(kept[0].headers() or ())
    assert headers["ce_id"] == instance(1).attributes.id.encode()
    assert headers[FROM] == f"{log.topic(Lane.ROUTINE)}/0@1".encode()


def test_a_damaged_message_at_the_end_is_done_without_the_owner(
    log: KafkaConfiguration, consumer: KafkaConsumer
) -> None:
    put_foreign(log, b"alone")
    until(lambda: not consumer.take(max_messages=9, max_bytes=9, wait_s=0.1) and is_done(log))
    until(lambda: not consumer.take(max_messages=9, max_bytes=9, wait_s=0.1) and not consumer.lag()[Lane.ROUTINE])
    consumer.close()
    with member(log) as again:
        put(log, instance(1))
        assert numbers(take_all(again, 1)) == [1]
    assert len(torn(log, 1)) == 1


def test_what_cannot_be_set_aside_is_not_passed(log: KafkaConfiguration, consumer: KafkaConsumer) -> None:
    admin = AdminClient({"bootstrap.servers": log.bootstrap})
    admin.delete_topics([log.torn_topic])[log.torn_topic].result(TIMEOUT_S)
    put(log, instance(0))
    put_foreign(log, b"hello")
    put(log, instance(1))

    assert numbers(take_all(consumer, 1)) == [0]
    with pytest.raises(Retryable, match="could not be set aside"):
        consumer.take(max_messages=9, max_bytes=10**6, wait_s=5.0)

    LogTopics(log).apply(partitions=1, replication=1)
    found: list[int] = []

    def goes_on() -> bool:
        try:
            found.extend(numbers(consumer.take(max_messages=9, max_bytes=10**6, wait_s=0.1)))
        except Retryable:
            return False
        return bool(found)

    until(goes_on)
    assert found == [1]


def test_a_group_without_an_offset_does_not_skip_what_was_deleted(kafka: KafkaBroker, log: KafkaConfiguration) -> None:
    fill(log, range(5))
    delete_before(log, 3)
    admin, group = AdminClient({"bootstrap.servers": log.bootstrap}), log.group(Lane.ROUTINE)
    admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    with member(log) as consumer, pytest.raises(Fatal, match="sansfilm topics apply"):
        take_all(consumer, 1)

    LogTopics(log).apply(partitions=1, replication=1)
    with member(log) as consumer:
        assert numbers(take_all(consumer, 2)) == [3, 4]


def test_an_offset_outside_of_the_topic_ends_the_lane(log: KafkaConfiguration) -> None:
    fill(log, range(5))
    delete_before(log, 2)  # the group is at 0
    with member(log) as consumer, pytest.raises(Fatal, match="sansfilm topics check"):
        take_all(consumer, 1)


def test_partitions_added_under_a_running_member_are_read_from_their_beginning(
    log: KafkaConfiguration, consumer: KafkaConsumer
) -> None:
    fill(log, range(4))
    taken = take_all(consumer, 4)
    LogTopics(log).apply(partitions=3, replication=1)
    fill(log, range(4, 60))
    taken += take_all(consumer, 56)
    assert sorted(numbers(taken)) == list(range(60))
    consumer.commit([one.position for one in taken])
    assert len(consumer.streams) == 3


def test_without_the_topic_a_consumer_says_what_to_run(kafka: KafkaBroker) -> None:
    with pytest.raises(Misconfigured, match="run sansfilm topics apply"):
        KafkaConsumer(KafkaConfiguration(bootstrap=kafka.bootstrap, prefix="nowhere"), lane=Lane.BULK)


def test_a_full_prefetch_does_not_keep_a_commit_waiting(log: KafkaConfiguration, consumer: KafkaConsumer) -> None:
    """The client's answer to a commit comes before what it has read ahead."""
    publisher = KafkaPublisher(log)
    publish(publisher, (instance(n, size_bytes=100_000) for n in range(300)))
    publisher.close()
    first = take_all(consumer, 1, max_messages=1)
    until(lambda: consumer.lag() == {Lane.ROUTINE: 300})
    consumer.commit([first[0].position])
    assert numbers(take_all(consumer, 299)) == list(range(1, 300))


def is_done(log: KafkaConfiguration) -> bool:
    """Whether the group has committed something, and everything."""
    return all(reach.committed == reach.end > 0 for reach in LogTopics(log).reach(Lane.ROUTINE).values())


def delete_before(log: KafkaConfiguration, offset: int) -> None:
    LogTopics(log).delete_before({TopicPartition(log.topic(Lane.ROUTINE), 0): offset})
