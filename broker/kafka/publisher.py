"""The writing end of the log on Kafka."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.lane_producer import LaneProducer
from broker.log import Position
from runtime.clock import Clock
from runtime.errors import Retryable
from schemas.message import Lane, Message


class KafkaPublisher:
    """A `broker.log.Publisher` on Kafka; one a process, shared by its threads. A client for each lane that it is given.

    So an urgent message waits for no bulk one on its way, and brokers can hold bulk down: its client has a name.
    """

    def __init__(
        self, configuration: KafkaConfiguration, *, close_timeout_s: float = 10.0, clock: Clock | None = None
    ) -> None:
        """Connects in the background: with all brokers away the first futures fail, not this."""
        self._configuration = configuration
        self._close_timeout_s = close_timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: dict[Lane, LaneProducer] = {}
        self._closed = False

    def publish(self, message: Message) -> Future[Position]:
        """See `broker.log.Publisher.publish`.

        Raises:
            Retryable: the publisher is closed. The future raises it too where Kafka did not acknowledge in time.
        """
        lane = message.attributes.lane
        return (self._lanes.get(lane) or self._opened(lane)).publish(message)

    def close(self) -> None:
        """Send what waits, within the deadline; what was not acknowledged by then fails. May be called again."""
        with self._lock:
            self._closed = True
        with ThreadPoolExecutor(len(Lane), "kafka-close") as threads:
            list(threads.map(LaneProducer.close, self._lanes.values()))

    def _opened(self, lane: Lane) -> LaneProducer:
        with self._lock:
            if self._closed:
                raise Retryable("the log is closed")
            if lane not in self._lanes:
                self._lanes[lane] = LaneProducer(
                    self._configuration, lane, close_timeout_s=self._close_timeout_s, clock=self._clock
                )
            return self._lanes[lane]
