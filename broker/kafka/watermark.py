"""How far the workers have come: whether everything that the log held at some time is committed.

Told in offsets. Timestamps would be the publishers' clocks, and whoever asks has yet another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import no_topic
from broker.kafka.topics import LogTopics, Reach
from schemas.message import Lane

#: Where each partition of the lanes ended, by ``topic/partition``.
Mark = Mapping[str, int]


def mark(configuration: KafkaConfiguration) -> Mark:
    """How far the log reaches now.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer, or a lane has no topic.
    """
    return {name: found.end for name, found in _reaches(configuration).items()}


def is_past(configuration: KafkaConfiguration, before: Mark) -> bool:
    """Whether the workers have committed everything before a mark.

    A partition whose group has no committed offset waits with all it holds; one that was deleted, for ever.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer, or a lane has no topic.
    """
    reaches = _reaches(configuration)
    return all(name in reaches and reaches[name].done >= end for name, end in before.items())


def _reaches(configuration: KafkaConfiguration) -> Mapping[str, Reach]:
    topics, found = LogTopics(configuration), dict[str, Reach]()
    for lane in Lane:
        of_lane = topics.reach(lane)
        if not of_lane:
            raise no_topic(configuration.topic(lane))
        found |= {f"{partition.topic}/{partition.partition}": reach for partition, reach in of_lane.items()}
    return found
