"""The publisher on a real broker: its limits, and a broker that is killed or frozen under it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.kafka import KafkaConfiguration, KafkaConsumer, KafkaPublisher
from broker.kafka.topics import LogTopics
from broker.log import Position
from region.kafka import KafkaBroker
from runtime.errors import Rejected, Retryable
from runtime.settings import MIB
from schemas.message import Lane
from schemas.reasons import RejectReason
from tests.broker.contract import TIMEOUT_S, numbers, publish, take_all
from tests.broker.messages import instance
from tests.region.kafka import fresh, frozen, set_of_topic
from tests.waiting import until


@contextmanager
def publishing(configuration: KafkaConfiguration, *, close_timeout_s: float = 10.0) -> Iterator[KafkaPublisher]:
    publisher = KafkaPublisher(configuration, close_timeout_s=close_timeout_s)
    try:
        yield publisher
    finally:
        publisher.close()


def all_of(configuration: KafkaConfiguration) -> list[int]:
    """Everything that the log holds; nothing of it was committed."""
    expected = sum(reach.end for reach in LogTopics(configuration).reach(Lane.ROUTINE).values())
    consumer = KafkaConsumer(configuration, lane=Lane.ROUTINE)
    try:
        return numbers(take_all(consumer, expected, max_bytes=64 * MIB))
    finally:
        consumer.close()


def test_messages_of_exactly_the_inline_limit_pass(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka)
    with publishing(configuration) as publisher:
        publish(publisher, [instance(n, size_bytes=configuration.inline_max_bytes) for n in range(12)])
    assert sorted(all_of(configuration)) == list(range(12))


def test_a_message_over_the_limit_is_rejected_and_others_pass(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka)
    with publishing(configuration) as publisher:
        over = publisher.publish(instance(1, size_bytes=configuration.message_max_bytes + 1))
        publish(publisher, [instance(2)])
        with pytest.raises(Rejected) as rejected:
            over.result(TIMEOUT_S)
    assert rejected.value.reason is RejectReason.TOO_LARGE


def test_a_message_over_the_topics_limit_is_rejected_and_others_pass(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka)
    set_of_topic(configuration, configuration.topic(Lane.ROUTINE), "max.message.bytes", "100000")
    with publishing(configuration) as publisher:
        over = publisher.publish(instance(1, size_bytes=200_000))
        with pytest.raises(Rejected) as rejected:
            over.result(TIMEOUT_S)
        publish(publisher, [instance(2)])
    assert rejected.value.reason is RejectReason.TOO_LARGE


def test_without_the_topic_the_future_says_what_to_run(kafka: KafkaBroker) -> None:
    configuration = KafkaConfiguration(bootstrap=kafka.bootstrap, prefix="nowhere")
    with publishing(configuration) as publisher, pytest.raises(Retryable, match="sansfilm topics apply"):
        publisher.publish(instance(1)).result(TIMEOUT_S)


def test_without_a_broker_the_future_fails_in_time() -> None:
    configuration = KafkaConfiguration(bootstrap="127.0.0.1:1", delivery_timeout_s=1.0)
    with publishing(configuration) as publisher, pytest.raises(Retryable, match="did not acknowledge"):
        publisher.publish(instance(1)).result(5.0)


def test_a_full_queue_blocks_until_a_frozen_broker_thaws(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka, queue_max_bytes=4 * MIB)
    futures: list[Future[Position]] = []
    with publishing(configuration) as publisher:
        publish(publisher, [instance(0)])
        with frozen(kafka):
            sender = threading.Thread(
                target=lambda: futures.extend(publisher.publish(instance(n, size_bytes=MIB)) for n in range(1, 21))
            )
            sender.start()
            until(lambda: len(futures) >= 3)
            sender.join(1.0)
            assert sender.is_alive()
            assert len(futures) < 10
            assert not futures[-1].done()
        sender.join(TIMEOUT_S)
        assert len({future.result(TIMEOUT_S).offset for future in futures}) == 20
    assert sorted(all_of(configuration)) == list(range(21))


@pytest.fixture
def held_down(kafka: KafkaBroker) -> Iterator[None]:
    """A quota for the bulk lane's client."""
    kafka.limit_client("sansfilm-bulk", bytes_per_s=50_000)
    yield
    kafka.limit_client("sansfilm-bulk", bytes_per_s=None)


def test_a_lane_that_brokers_hold_down_keeps_no_other_waiting(kafka: KafkaBroker, held_down: None) -> None:
    configuration = fresh(kafka)
    with publishing(configuration, close_timeout_s=0.1) as publisher:
        first = [publisher.publish(instance(n, size_bytes=500_000, lane=Lane.BULK)) for n in range(4)]
        until(lambda: any(future.done() for future in first), timeout_s=TIMEOUT_S, what="an answer to bulk")
        held = [publisher.publish(instance(n, size_bytes=500_000, lane=Lane.BULK)) for n in range(4, 12)]
        publish(publisher, [instance(99, lane=Lane.URGENT)])
        assert not any(future.done() for future in held)


def test_close_ends_in_time_and_fails_what_is_not_acknowledged(kafka: KafkaBroker) -> None:
    with frozen(kafka):
        publisher = KafkaPublisher(fresh_later(kafka), close_timeout_s=0.5)
        futures = [publisher.publish(instance(n)) for n in range(5)]
        publisher.close()
        assert all(isinstance(future.exception(TIMEOUT_S), Retryable) for future in futures)
    with pytest.raises(Retryable):
        publisher.publish(instance(9))


def fresh_later(broker: KafkaBroker) -> KafkaConfiguration:
    """A log whose topics are not made: the broker is frozen."""
    return KafkaConfiguration(bootstrap=broker.bootstrap, prefix="never-made")


def test_what_a_killed_broker_acknowledged_is_there_when_it_is_back(tmp_path: Path) -> None:
    with KafkaBroker(tmp_path / "kafka", heap_mib=256, quick=True) as broker:
        configuration = replace(fresh(broker), delivery_timeout_s=3.0)
        acknowledged: list[int] = []
        failed: list[BaseException] = []
        stop = threading.Event()

        def send() -> None:
            number = 0
            while not stop.is_set():
                group = [(number + n, publisher.publish(instance(number + n, size_bytes=50_000))) for n in range(8)]
                wait_for([future for _, future in group], TIMEOUT_S)
                acknowledged.extend(n for n, future in group if future.exception() is None)
                failed.extend(error for _, future in group if (error := future.exception()) is not None)
                number += 8

        with publishing(configuration) as publisher:
            sender = threading.Thread(target=send)
            sender.start()
            until(lambda: len(acknowledged) >= 80)
            broker.kill()
            until(lambda: failed, what="a failure")
            broker.start()
            before = len(acknowledged)
            until(lambda: len(acknowledged) > before + 8, what="an acknowledgement after the restart")
            stop.set()
            sender.join(TIMEOUT_S)
        assert {type(error) for error in failed} == {Retryable}
        assert set(acknowledged) <= set(all_of(configuration))
