"""A real Kafka broker for tests: started once a session, if a test asks for it; fresh topics for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from broker.kafka import KafkaConfiguration
from broker.kafka.topics import LogTopics
from region.kafka import KafkaBroker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for all tests that do it no harm."""
    with KafkaBroker(tmp_path_factory.mktemp("kafka"), heap_mib=256) as broker:
        yield broker


def fresh(broker: KafkaBroker, *, partitions: int = 1, **limits: float) -> KafkaConfiguration:
    """A log of its own on `broker`: topics that nothing else uses, offsets committed."""
    configuration = KafkaConfiguration(bootstrap=broker.bootstrap, prefix=f"t-{uuid.uuid4().hex[:12]}", **limits)  # type: ignore[arg-type]
    LogTopics(configuration).apply(partitions=partitions, replication=1)
    return configuration
