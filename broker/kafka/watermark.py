"""How far the workers have come, told in time: whether everything published before a moment is committed."""

from __future__ import annotations

from datetime import datetime

from confluent_kafka.admin._listoffsets import OffsetSpec

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.topics import LogTopics
from schemas.message import Lane


def is_committed_before(configuration: KafkaConfiguration, moment: datetime) -> bool:
    """Whether no message published before `moment` waits in any lane, by the messages' own timestamps.

    A partition whose group has no committed offset waits with all it holds.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer.
    """
    topics = LogTopics(configuration)
    return all(_is_past(topics, lane, int(moment.timestamp() * 1000)) for lane in Lane)


def _is_past(topics: LogTopics, lane: Lane, moment_ms: int) -> bool:
    reach = topics.reach(lane)
    young = topics.offsets(list(reach), OffsetSpec.for_timestamp(moment_ms))
    for partition, found in reach.items():
        # The first message that is not older; -1: all are.
        end = young[partition] if young[partition] >= 0 else found.end
        if max(found.first, found.committed or 0) < min(end, found.end):
            return False
    return True
