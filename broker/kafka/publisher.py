"""The writing end of the log on Kafka."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from broker.kafka.binding import to_headers
from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import Complaints, error_of, published
from broker.log import Position
from runtime import metrics
from runtime.clock import Clock, SystemClock
from runtime.errors import Retryable
from runtime.lifecycle import Deadline
from runtime.logs import get_logger
from schemas.message import Message

#: How long the thread waits for delivery reports at a time, and `publish` for room before it looks again.
_POLL_S = 0.1


class KafkaPublisher:
    """A `broker.log.Publisher` on Kafka; one a process, shared by its threads.

    One thread serves the delivery reports and with them the futures. The client copies a value when it is published;
    what it holds is bounded by `queue_max_bytes`. Order is kept among messages of one key.
    """

    def __init__(
        self, configuration: KafkaConfiguration, *, close_timeout_s: float = 10.0, clock: Clock | None = None
    ) -> None:
        """Connects in the background: with all brokers away the first futures fail, not this."""
        self._configuration = configuration
        self._close_timeout_s = close_timeout_s
        self._clock = clock or SystemClock()
        self._complaints = Complaints("producer", configuration.security)
        #: Held while a message is handed over, so that none is after `close`; told when there may be room.
        self._room = threading.Condition()
        self._closed = False
        self._stopped = threading.Event()
        self._producer = self._made()
        self._thread = threading.Thread(target=self._serve, name="kafka-publisher", daemon=True)
        self._thread.start()

    def publish(self, message: Message) -> Future[Position]:
        """See `broker.log.Publisher.publish`.

        Raises:
            Retryable: the publisher is closed. The future raises it too where Kafka did not acknowledge in time.
        """
        future: Future[Position] = Future()
        # From here on the message will be written; a cancelled future would be a message nobody waits for.
        future.set_running_or_notify_cancel()
        began_s = self._clock.monotonic_s()

        def delivered(error: KafkaError | None, record: Record) -> None:
            metrics.LOG_PUBLISH_SECONDS.observe(self._clock.monotonic_s() - began_s)
            self._delivered(future, error, record)

        attributes = message.attributes
        value = message.value if isinstance(message.value, bytes) else bytes(message.value)
        topic, key, headers = self._configuration.topic(attributes.lane), attributes.key.encode(), to_headers(message)
        with self._room:
            while not self._closed:
                try:
                    self._producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
                    return future
                except BufferError:
                    self._room.wait(_POLL_S)
                except KafkaException as error:
                    future.set_exception(published(self._noted(error_of(error)), self._complaints.refusal))
                    return future
        raise Retryable("the log is closed")

    def close(self) -> None:
        """Send what waits, within the deadline; what was not acknowledged by then fails. May be called again."""
        with self._room:
            if self._closed:
                return
            self._closed = True
            self._room.notify_all()
        left = self._flush(self._producer, self._close_timeout_s)
        self._stopped.set()
        self._thread.join()
        if left:
            get_logger().error("log_closed_unacknowledged", messages=left)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            self._producer.poll(_POLL_S)
            metrics.LOG_QUEUE_MESSAGES.set(len(self._producer))

    def _delivered(self, future: Future[Position], error: KafkaError | None, record: Record) -> None:
        if error is not None:
            future.set_exception(published(self._noted(error), self._complaints.refusal))
        else:
            self._complaints.over()
            offset = record.offset() or 0
            stream = f"{record.topic()}/{record.partition()}"
            future.set_result(Position(stream=stream, offset=offset, next_offset=offset + 1))
        with self._room:
            self._room.notify_all()

    def _noted(self, error: KafkaError) -> KafkaError:
        metrics.LOG_PUBLISH_FAILURES.inc()
        get_logger().warning("message_not_acknowledged", error=error.name())
        return error

    def _made(self) -> Producer:
        return Producer(self._configuration.producer() | {"error_cb": self._failed})

    def _failed(self, error: KafkaError) -> None:
        """The client's own errors. After a fatal one it takes nothing more: another one takes its place."""
        self._complaints.note(error)
        if not error.fatal():
            return
        get_logger().error("kafka_producer_replaced", error=error.name())
        old, self._producer = self._producer, self._made()
        threading.Thread(target=self._flush, args=(old, self._close_timeout_s), daemon=True).start()

    def _flush(self, producer: Producer, timeout_s: float) -> int:
        """Serve a producer until it is empty; at the deadline fail what is left. Gives how much that was."""
        deadline = Deadline(timeout_s, self._clock.monotonic_s)
        producer.flush(deadline.remaining_s())
        left = len(producer)
        if left:
            producer.purge()
            producer.flush(1.0)  # the reports of what was purged
        return left
