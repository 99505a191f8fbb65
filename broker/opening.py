"""Which log: chosen by the settings alone. Files of this machine, or Apache Kafka.

An edge of a region publishes to Kafka itself (`ack_mode` kafka), or into its own files, its *spool*, from where a
forwarder ships (`ack_mode` spool).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.local import (
    FORWARDER,
    WORKERS,
    LocalConsumer,
    LocalPublisher,
    Usage,
    first_waiting,
    log_usage,
    waiting_attributes,
)
from broker.log import Consumer, Publisher
from runtime.clock import Clock
from runtime.settings import CommonSettings, EdgeSettings, WorkerSettings
from schemas.message import Lane, MessageAttributes
from segments.disk import Disk

if TYPE_CHECKING:  # the client takes time to load, and the embedded form has no use for it
    from broker.kafka import KafkaConfiguration


#: Longest wait for room in this machine's log of whoever is no edge: a command.
_QUEUE_TIMEOUT_S: Final = 25.0


def open_publisher(settings: CommonSettings, *, writer: str, senders_write: bool = False) -> Publisher:
    """The writing end of the log that workers read; closed by its owner. `writer` names this start of this process.

    Of files of this machine, callers who wait for each message may write it themselves: see `LocalPublisher`.

    Raises:
        Misconfigured: Kafka's brokers refuse us, or may not be reached as the settings say.
    """
    if settings.kafka_bootstrap:
        check_region(settings)
        return open_region(settings)
    return open_spool(settings, writer=writer, senders_write=senders_write)


def open_region(settings: CommonSettings) -> Publisher:
    """The writing end of the log on Kafka, whatever its brokers say of us now; closed by its owner.

    Raises:
        Misconfigured: the brokers may not be reached as the settings say.
    """
    from broker.kafka import KafkaPublisher

    return KafkaPublisher(kafka_configuration(settings))


def check_region(settings: CommonSettings) -> None:
    """Ask Kafka's brokers whether they take us, for a few seconds at most. That they are away is no error.

    Raises:
        Misconfigured: they refuse us, or may not be reached as the settings say; says what to set.
    """
    from broker.kafka.access import check_access

    check_access(kafka_configuration(settings))


def open_spool(settings: CommonSettings, *, writer: str, senders_write: bool = False) -> LocalPublisher:
    """The writing end of this machine's own log; see `LocalPublisher` for `senders_write`."""
    return LocalPublisher(
        settings.log_dir,
        writer=writer,
        file_max_bytes=settings.log_file_max_bytes,
        queue_timeout_s=settings.ack_timeout_s if isinstance(settings, EdgeSettings) else _QUEUE_TIMEOUT_S,
        senders_write=senders_write,
    )


def open_consumer(
    settings: WorkerSettings, lane: Lane, *, disk: Disk | None = None, clock: Clock | None = None
) -> Consumer:
    """A worker's reading end of a lane; closed by its owner.

    Raises:
        Misconfigured: another worker of this machine has the lane, the topic is missing, or the brokers refuse us.
        Retryable: the log is away.
    """
    if settings.kafka_bootstrap:
        from broker.kafka import KafkaConsumer

        return KafkaConsumer(kafka_configuration(settings), lane=lane, clock=clock)
    return LocalConsumer(settings.log_dir, lane=lane, disk=disk, clock=clock)


def is_spooling(settings: EdgeSettings) -> bool:
    """Whether an edge acknowledges from its own disk and ships later."""
    return bool(settings.kafka_bootstrap) and settings.ack_mode == "spool"


def local_usage(settings: CommonSettings) -> Usage:
    """What of this machine's log is still needed: by the worker, or by the forwarder if it is a spool."""
    return log_usage(settings.log_dir, _group(settings))


def waiting_here(settings: CommonSettings) -> Iterator[MessageAttributes]:
    """What waits in this machine's log: for the worker, or for the forwarder if it is a spool. Headers are read."""
    return waiting_attributes(settings.log_dir, _group(settings))


def oldest_here(settings: CommonSettings, lane: Lane) -> str:
    """When the oldest message of a lane that waits in this machine's log was received; empty if none does."""
    return min((one.time for one in first_waiting(settings.log_dir, lane, _group(settings))), default="")


def waiting_messages(settings: CommonSettings) -> Mapping[Lane, int]:
    """Messages of the log that workers have not committed yet, seen from outside, by lane.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer.
    """
    if not settings.kafka_bootstrap:
        return local_usage(settings).uncommitted_messages
    from broker.kafka.topics import LogTopics

    topics = LogTopics(kafka_configuration(settings))
    return {lane: sum(reach.end - reach.done for reach in topics.reach(lane).values()) for lane in Lane}


def _group(settings: CommonSettings) -> str:
    """Who reads this machine's log."""
    return FORWARDER if settings.kafka_bootstrap else WORKERS


def kafka_configuration(settings: CommonSettings) -> KafkaConfiguration:
    """Kafka's clients and topics as the settings want them.

    Raises:
        Misconfigured: a setting of TLS or credentials is wrong, or missing.
    """
    from broker.kafka import KafkaConfiguration
    from broker.kafka.security import security_from

    configuration = KafkaConfiguration(
        bootstrap=settings.kafka_bootstrap,
        security=security_from(settings),
        prefix=settings.kafka_topic_prefix,
        inline_max_bytes=settings.inline_max_bytes,
    )
    if isinstance(settings, WorkerSettings):
        return replace(configuration, poll_interval_max_s=settings.kafka_poll_interval_max_s)
    return configuration


def mark(settings: CommonSettings) -> Mapping[str, int]:
    """How far the log reaches now, to be asked about with `is_past`. Of a local log there is no telling: empty.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer.
    """
    if not settings.kafka_bootstrap:
        return {}
    from broker.kafka import watermark

    return watermark.mark(kafka_configuration(settings))


def is_past(settings: CommonSettings, before: Mapping[str, int]) -> bool:
    """Whether workers have committed everything before a mark. Of a local log: whether nothing waits.

    Raises:
        Misconfigured, Retryable: Kafka refused or did not answer.
    """
    if not settings.kafka_bootstrap:
        return not any(waiting_messages(settings).values())
    from broker.kafka import watermark

    return watermark.is_past(kafka_configuration(settings), before)
