"""How far the workers have come: whether everything that the log held at some time is committed.

Told in offsets. Timestamps would be the publishers' clocks, and whoever asks has yet another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.topics import LogTopics
from schemas.message import Lane

#: Where each partition of the lanes ended, by ``topic/partition``.
Mark = Mapping[str, int]


def mark(configuration: KafkaConfiguration) -> Mark:
    """How far the log reaches now.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer.
    """
    reaches = LogTopics(configuration).reach
    return {
        f"{partition.topic}/{partition.partition}": found.end
        for lane in Lane
        for partition, found in reaches(lane).items()
    }


def is_past(configuration: KafkaConfiguration, before: Mark) -> bool:
    """Whether the workers have committed everything before a mark.

    A partition whose group has no committed offset waits with all it holds. One that is not in the mark was made since.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer.
    """
    reaches = LogTopics(configuration).reach
    return all(
        max(found.first, found.committed or 0) >= before.get(f"{partition.topic}/{partition.partition}", 0)
        for lane in Lane
        for partition, found in reaches(lane).items()
    )
