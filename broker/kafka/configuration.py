"""Every setting of the Kafka clients and topics, derived in one place from what an operator sets.

The rule that ties them: a message is at most an inline instance, its attributes and Kafka's framing; a producer's
batch, a topic's ``max.message.bytes`` (which limits the *batch*) and a consumer's fetch each hold at least one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from broker.kafka.security import KafkaSecurity
from runtime.settings import MIB
from schemas.message import Lane

#: Room for attributes, key and framing beside an inline instance. Titles and UIDs are short; this is generous.
_ATTRIBUTES_MAX_BYTES: Final = MIB
#: How long a request may go unanswered before its connection is given up: a frozen broker is noticed after that.
_REQUEST_TIMEOUT_MS: Final = 10_000
#: How long events stay, unless an operator changes it.
_EVENTS_KEEP_MS: Final = 7 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfiguration:
    """Where the log is, and its limits."""

    #: Brokers, ``host:port,...``.
    bootstrap: str
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    #: Topics are ``<prefix>.<lane>``, ``<prefix>.events`` and ``<prefix>.torn``, groups ``<prefix>-workers-<lane>``.
    prefix: str = "sansfilm"
    #: Largest value of a message; larger instances travel as claim checks.
    inline_max_bytes: int = MIB
    #: What a publisher holds of a lane before `publish` blocks. The client copies values: memory is up to twice this.
    queue_max_bytes: int = 96 * MIB
    #: What a consumer reads ahead.
    prefetch_max_bytes: int = 64 * MIB
    #: After so long an unacknowledged message fails. Below `ack_timeout_s`, so that the edge hears of it in time and
    #: a publisher does not fill up with messages nobody waits for.
    delivery_timeout_s: float = 20.0
    #: Longest time between two takes; then the member counts as hanging and its partitions go to others.
    poll_interval_max_s: float = 300.0

    @property
    def message_max_bytes(self) -> int:
        """The largest batch, hence the largest message with its attributes."""
        return self.inline_max_bytes + _ATTRIBUTES_MAX_BYTES

    @property
    def torn_topic(self) -> str:
        """Where messages are set aside that are none of ours, or no longer what was sent."""
        return f"{self.prefix}.torn"

    @property
    def events_topic(self) -> str:
        """What was committed, for other systems."""
        return f"{self.prefix}.events"

    def topic(self, lane: Lane) -> str:
        """The topic of a lane."""
        return f"{self.prefix}.{lane.value}"

    def group(self, lane: Lane) -> str:
        """The consumer group of the workers of a lane."""
        return f"{self.prefix}-workers-{lane.value}"

    def admin(self) -> dict[str, Any]:
        """Settings of an AdminClient."""
        return self._client()

    def producer(self, lane: Lane | None = None) -> dict[str, Any]:
        """Settings of a Producer: acknowledged by all in-sync replicas, each message once and in order of its key.

        That of a lane has a name, ``sansfilm-<lane>``, by which brokers can give it a quota.
        """
        return self._client() | {
            "client.id": f"sansfilm-{lane.value}" if lane else "sansfilm",
            "acks": "all",
            "enable.idempotence": True,
            # With as many as an idempotent client may have (5), librdkafka 2.16 waits for their answers in a busy loop
            # whenever a partition has more to send: a core, for as long as brokers are slow.
            "max.in.flight.requests.per.connection": 4,
            "message.max.bytes": self.message_max_bytes,
            "batch.size": self.inline_max_bytes,
            "linger.ms": 2,
            "compression.type": "none",
            "queue.buffering.max.kbytes": max(1, self.queue_max_bytes // 1024),
            "delivery.timeout.ms": int(self.delivery_timeout_s * 1000),
            "partitioner": "murmur2_random",
            "topic.metadata.propagation.max.ms": 5000,
        }

    def torn_producer(self) -> dict[str, Any]:
        """Settings of what sets messages aside: whatever a lane's topic holds must fit, with one header more."""
        return self.producer() | {"message.max.bytes": 2 * self.message_max_bytes}

    def consumer(self, lane: Lane) -> dict[str, Any]:
        """Settings of a Consumer of a lane: the group protocol of KIP-848, offsets by hand, no silent reset."""
        return self._reading() | {
            "group.id": self.group(lane),
            "group.protocol": "consumer",
            "max.poll.interval.ms": int(self.poll_interval_max_s * 1000),
        }

    def reader(self) -> dict[str, Any]:
        """Settings of a Consumer that joins no group and commits nothing; the client insists on a name for one."""
        return self._reading() | {"group.id": f"{self.prefix}-replay", "enable.partition.eof": True}

    def _reading(self) -> dict[str, Any]:
        return self._client() | {
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 2 * self.message_max_bytes,
            "fetch.max.bytes": self._fetch_max_bytes,
            "receive.message.max.bytes": self._fetch_max_bytes + MIB,
            "queued.max.messages.kbytes": max(1, self.prefetch_max_bytes // 1024),
            "queued.min.messages": 32,
            # By default a fetch that found the queue full enough comes back a whole second later, and the lane starves.
            "fetch.queue.backoff.ms": 5,
        }

    def topic_settings(self, topic: str, *, replication: int) -> dict[str, str]:
        """What a topic must be set to: nothing expires, nothing is compacted, one broker may be lost.

        Brokers stamp messages: of a publisher whose clock is an hour ahead they would take none, and a stretch of time
        would be one of many clocks. When it was received is in the message's own attributes.

        Events may expire: they are no source of truth, and how long they stay is the operator's choice.
        """
        limit_bytes = self.message_max_bytes * (2 if topic == self.torn_topic else 1)
        expires = {"retention.ms": "-1", "retention.bytes": "-1"} if topic != self.events_topic else {}
        return {
            "min.insync.replicas": str(min(2, replication)),
            "cleanup.policy": "delete",
            **expires,
            "max.message.bytes": str(limit_bytes),
            "unclean.leader.election.enable": "false",
            "message.timestamp.type": "LogAppendTime",
        }

    def first_settings(self, topic: str, *, replication: int) -> dict[str, str]:
        """What a topic is made with."""
        expires = {"retention.ms": str(_EVENTS_KEEP_MS)} if topic == self.events_topic else {}
        return self.topic_settings(topic, replication=replication) | expires

    @property
    def _fetch_max_bytes(self) -> int:
        return max(32 * MIB, 2 * self.message_max_bytes)

    def _client(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            **self.security.client(),
            "client.id": "sansfilm",
            "allow.auto.create.topics": False,
            "socket.timeout.ms": _REQUEST_TIMEOUT_MS,
            "socket.connection.setup.timeout.ms": _REQUEST_TIMEOUT_MS,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2000,
            # What matters comes as errors, which we log.
            "log_level": 0,
        }
