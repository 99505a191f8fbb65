"""The log on Apache Kafka; see `broker` for its design."""

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.consumer import KafkaConsumer
from broker.kafka.publisher import KafkaPublisher

__all__ = ["KafkaConfiguration", "KafkaConsumer", "KafkaPublisher"]
