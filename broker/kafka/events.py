"""Events on Kafka: a batch of them is acknowledged by all in-sync replicas, or is published again."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import Complaints, error_of, published
from runtime import metrics
from runtime.errors import Retryable
from schemas.events import Event, data_of, headers_of, key_of

#: How long to wait for room in the client's queue before delivery reports are served again.
_POLL_S = 0.1
#: Beyond `delivery_timeout_s`, by which the client itself has reported every message.
_PATIENCE_S = 5.0


class EventPublisher:
    """Publishes batches of events, one after the other; used by one thread, which closes it."""

    def __init__(self, configuration: KafkaConfiguration) -> None:
        self._configuration = configuration
        self._complaints = Complaints("producer", configuration.security)
        self._producer: Producer | None = None

    def publish(self, events: Sequence[Event]) -> None:
        """Publish `events`; all are acknowledged on return. Those of a study stay in order.

        Raises:
            Retryable: some were not acknowledged, and others perhaps were: publish all again.
        """
        if self._producer is None:
            self._producer = Producer(self._configuration.producer() | {"error_cb": self._complaints.note})
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Record) -> None:
            if error is not None:
                failures.append(error)

        try:
            for event in events:
                self._produce(self._producer, event, delivered)
            left = self._producer.flush(self._configuration.delivery_timeout_s + _PATIENCE_S)
        except KafkaException as error:
            failures.append(error_of(error))
            left = 0
        if failures or left:
            self._give_up()
            if failures:
                raise published(failures[0], self._complaints.refusal)
            raise Retryable("Kafka did not acknowledge events in time")
        self._complaints.over()
        for event in events:
            metrics.EVENTS_PUBLISHED.labels(event.type.removeprefix("sansfilm.").removesuffix(".v1")).inc()

    def close(self) -> None:
        """Nothing waits outside of `publish`."""
        self._give_up()

    def _produce(self, producer: Producer, event: Event, delivered: object) -> None:
        headers: list[tuple[str, str | bytes | None]] = [
            (name, value.encode()) for name, value in headers_of(event).items()
        ]
        topic, value, key = self._configuration.events_topic, data_of(event), key_of(event).encode()
        while True:
            try:
                producer.produce(topic, value, key, headers=headers, on_delivery=delivered)  # type: ignore[arg-type]
                return
            except BufferError:
                producer.poll(_POLL_S)

    def _give_up(self) -> None:
        """Forget the client with whatever it holds: the next batch gets another one, which nothing holds up."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None
