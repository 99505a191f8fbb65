"""Deletes from Kafka what every worker has committed, after a time of grace in which it could still be replayed."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.topics import LogTopics
from runtime import metrics
from runtime.clock import Clock, SystemClock
from runtime.logs import get_logger
from schemas.message import Lane

#: What is committed stays so long.
KEEP_S = 72 * 3600.0


def delete_committed(
    configuration: KafkaConfiguration, *, keep_s: float = KEEP_S, clock: Clock | None = None
) -> Mapping[Lane, int]:
    """Delete up to the committed offset, or up to the first message younger than `keep_s`, whichever comes first.

    A message's age is by its timestamp, the brokers' clock. A partition without a committed offset is left alone.
    Gives how many messages were deleted, by lane; may be called at any time, from several processes.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer; perhaps some partitions are done.
    """
    topics = LogTopics(configuration)
    moment_ms = int(((clock or SystemClock()).now().timestamp() - keep_s) * 1000)
    return {lane: _delete(topics, lane, moment_ms) for lane in Lane}


def _delete(topics: LogTopics, lane: Lane, moment_ms: int) -> int:
    reach = topics.reach(lane)
    young = topics.offsets(list(reach), OffsetSpec.for_timestamp(moment_ms))
    before: dict[TopicPartition, int] = {}
    messages = 0
    for partition, found in reach.items():
        # None is younger: the answer is -1.
        limit = young[partition] if young[partition] >= 0 else found.end
        limit = min(limit, found.end, found.committed if found.committed is not None else 0)
        if limit > found.first:
            before[partition] = limit
            messages += limit - found.first
    topics.delete_before(before)
    if messages:
        metrics.LOG_DELETED_MESSAGES.labels(lane=lane.value).inc(messages)
        get_logger().info("log_deleted", lane=lane.value, messages=messages, partitions=len(before))
    return messages
