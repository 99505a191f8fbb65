"""The contract of the log on a real Kafka broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.kafka import KafkaConfiguration, KafkaConsumer, KafkaPublisher
from region.kafka import KafkaBroker
from schemas.message import Lane
from tests.broker.contract import LogContract
from tests.region.kafka import fresh
from tests.waiting import until


def joined(consumer: KafkaConsumer, streams: int = 1) -> KafkaConsumer:
    """The consumer once so many partitions are its own; nothing of them is taken."""
    until(lambda: [*consumer.take(max_messages=1, max_bytes=1, wait_s=0.1), len(consumer.streams) >= streams][-1])
    consumer.rewind()
    return consumer


class KafkaLog:
    """Topics of one partition each, so that order is that of publishing."""

    def __init__(self, configuration: KafkaConfiguration) -> None:
        self.configuration = configuration
        self._opened: list[KafkaPublisher | KafkaConsumer] = []

    def publisher(self) -> KafkaPublisher:
        publisher = KafkaPublisher(self.configuration)
        self._opened.append(publisher)
        return publisher

    def consumer(self, lane: Lane = Lane.ROUTINE) -> KafkaConsumer:
        consumer = KafkaConsumer(self.configuration, lane=lane)
        self._opened.append(consumer)
        return joined(consumer)

    def close(self) -> None:
        for one in self._opened:
            one.close()


class TestKafkaLog(LogContract):
    at_once = False

    @pytest.fixture
    def log(self, kafka: KafkaBroker) -> Iterator[KafkaLog]:
        log = KafkaLog(fresh(kafka))
        yield log
        log.close()
