"""A real Kafka broker for tests: started once a session, if a test asks for it; fresh topics for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from broker.kafka import KafkaConfiguration
from broker.kafka.topics import LogTopics
from region.kafka import KafkaBroker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for all tests that do it no harm."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), heap_mib=256, quick=True)
    broker.start()
    yield broker
    broker.kill()  # nothing of it is needed any more


@contextmanager
def frozen(broker: KafkaBroker) -> Iterator[None]:
    """The broker answers nobody meanwhile."""
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()


def set_of_topic(configuration: KafkaConfiguration, topic: str, name: str, value: str) -> None:
    """Change one setting of a topic behind the product's back."""
    admin = AdminClient({"bootstrap.servers": configuration.bootstrap})
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30.0)


def fresh(broker: KafkaBroker, *, partitions: int = 1, **limits: float) -> KafkaConfiguration:
    """A log of its own on `broker`: topics that nothing else uses, offsets committed."""
    configuration = KafkaConfiguration(bootstrap=broker.bootstrap, prefix=f"t-{uuid.uuid4().hex[:12]}", **limits)  # type: ignore[arg-type]
    LogTopics(configuration).apply(partitions=partitions, replication=1)
    return configuration
