"""Messages that are none of ours, or no longer what was sent: set aside as they are, in a topic of their own.

The counterpart of the local log's ``.torn`` files. Nothing reads that topic but an operator; every header is kept, and
``sansfilm_torn_from`` says where the message lay.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from broker.kafka.binding import pairs
from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import error_of
from runtime.errors import Retryable
from runtime.logs import get_logger
from runtime.metrics import LOG_TORN

FROM: Final = "sansfilm_torn_from"


class TornTopic:
    """Where one consumer sets messages aside. Connects when the first one comes."""

    def __init__(self, configuration: KafkaConfiguration) -> None:
        self._configuration = configuration
        self._producer: Producer | None = None

    def keep(self, record: Record) -> None:
        """Copy `record`, acknowledged on return, with an alarm.

        Raises:
            Retryable: it was not copied; its offset must not be committed.
        """
        place = f"{record.topic()}/{record.partition()}@{record.offset()}"
        topic = self._configuration.torn_topic
        outcome: list[KafkaError | None] = []
        headers = [*pairs(record.headers()), (FROM, place.encode())]
        self._producer = self._producer or Producer(self._configuration.torn_producer())
        try:
            self._producer.produce(
                topic, record.value(), record.key(), headers=headers, on_delivery=lambda error, _: outcome.append(error)
            )
            self._producer.flush(self._configuration.delivery_timeout_s)
        except (BufferError, KafkaException) as error:
            outcome.append(error_of(error) if isinstance(error, KafkaException) else KafkaError(KafkaError._QUEUE_FULL))
        failure = outcome[0] if outcome else KafkaError(KafkaError._TIMED_OUT)
        if failure is not None:
            name = failure.name()
            get_logger().error("message_torn_not_copied", place=place, error=name)
            raise Retryable(f"the message at {place} is damaged and could not be set aside in {topic}: {name}")
        LOG_TORN.labels(kind="corrupt").inc()
        size_bytes = len(record.value() or b"")
        get_logger().error("message_torn", place=place, size_bytes=size_bytes, kept_in=topic)
