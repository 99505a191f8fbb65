"""The topics of the log: made, repaired and checked, so that nothing in them expires and no offset is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from broker.kafka.access import await_access
from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import Refusals, admin_failed, error_of
from runtime.errors import Retryable
from runtime.lifecycle import Deadline
from schemas.message import Lane

#: An administrative request may take so long. Just after topics were made the client may lose one altogether (2.16).
_TIMEOUT_S = 10.0
#: All of `apply`, repetitions included.
_APPLY_TIMEOUT_S = 60.0
_PAUSE_S = 0.1
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
#: Settings whose exact value nothing depends on: a larger limit is as good.
_AT_LEAST = frozenset({"max.message.bytes", "min.insync.replicas"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be. An error could lose or truncate messages."""

    level: Literal["error", "warning"]
    topic: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a partition holds, and how far its group has committed: None where that is not known."""

    first: int
    end: int
    committed: int | None

    @property
    def done(self) -> int:
        """The first message that the workers have not committed; without a committed offset the first that there is."""
        return max(self.first, self.committed or 0)


class LogTopics:
    """The topics of one log on one cluster. Making it and every method raise Misconfigured where Kafka refuses, or
    Retryable."""

    def __init__(self, configuration: KafkaConfiguration, *, pause: Callable[[float], object] = time.sleep) -> None:
        self._configuration = configuration
        self._pause = pause
        refusals = Refusals(configuration.security)
        self._admin = AdminClient(configuration.admin() | {"error_cb": refusals.note})
        if configuration.security.protocol != "plaintext":
            answered = await_access(self._admin, refusals)
            if refusals.was_cut and not answered:
                raise Retryable(
                    "Kafka's brokers are away, or do not speak TLS at this address: what answers ends the connection; "
                    "see SANSFILM_KAFKA_BOOTSTRAP"
                )

    @property
    def names(self) -> Sequence[str]:
        """Every topic: those with a study's order, and the one for what is torn."""
        return [*self._keyed, self._configuration.torn_topic]

    def apply(self, *, partitions: int, replication: int) -> Sequence[str]:
        """Make what is missing and repair what can be repaired; gives what was done, a line each.

        Never lowers partitions, deletes or moves anything. Messages that are there stay: a group without a committed
        offset begins at the first one.
        """
        done: list[str] = []
        deadline = Deadline(_APPLY_TIMEOUT_S)
        for step in (
            lambda: self._create(partitions, replication),
            lambda: self._grow(partitions),
            lambda: self._configure(replication),
            self._begin,
        ):
            self._persist(step, done, deadline)
        return done

    def check(self, *, partitions: int = 0, replication: int = 3, allow_single: bool = False) -> Sequence[Finding]:
        """What is wrong; nothing if all is well."""
        described = self._described()
        findings: list[Finding] = []
        for name in self.names:
            if name not in described:
                findings.append(Finding(level="error", topic=name, text="is missing: run sansfilm topics apply"))
                continue
            replicas = described[name]
            findings += _layout_findings(name, replicas, 1 if name == self._torn else partitions, replication)
            if min(replicas) < 2 and not allow_single:
                text = "has one replica: with its broker's disk, acknowledged messages are lost (--allow-single)"
                findings.append(Finding(level="warning", topic=name, text=text))
            wrong = self._wrong_settings(name, min(*replicas, replication))
            findings += [
                Finding(level="error", topic=name, text=f"{setting} is {found}, not {wanted}")
                for setting, (found, wanted) in wrong.items()
            ]
        for lane in Lane:
            if self._configuration.topic(lane) in described:
                findings += _offset_findings(self.reach(lane))
        return findings

    def reach(self, lane: Lane) -> Mapping[TopicPartition, Reach]:
        """What each partition of a lane holds, and how far the workers have committed it."""
        partitions = self._partitions(lane)
        first = self.offsets(partitions, _EARLIEST)
        end = self.offsets(partitions, _LATEST)
        committed = self._committed(lane, partitions)
        return {one: Reach(first=first[one], end=end[one], committed=committed.get(one)) for one in partitions}

    def offsets(self, partitions: Sequence[TopicPartition], spec: OffsetSpec) -> Mapping[TopicPartition, int]:
        """One offset of each partition."""
        if not partitions:
            return {}
        asked = self._admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=_TIMEOUT_S)
        with _mapped("list offsets"):
            return {one: future.result(_TIMEOUT_S).offset for one, future in asked.items()}

    def delete_before(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Delete the messages before an offset of each partition."""
        wanted = [TopicPartition(one.topic, one.partition, offset) for one, offset in offsets.items()]
        if wanted:
            with _mapped("delete records"):
                for future in self._admin.delete_records(wanted, request_timeout=_TIMEOUT_S).values():
                    future.result(_TIMEOUT_S)

    @property
    def _keyed(self) -> Sequence[str]:
        """The lanes' topics and that of the events: a study's key decides the partition."""
        return [*map(self._configuration.topic, Lane), self._configuration.events_topic]

    @property
    def _torn(self) -> str:
        return self._configuration.torn_topic

    def _persist(self, step: Callable[[], Iterable[str]], done: list[str], deadline: Deadline) -> None:
        """Repeat a step while Kafka is still electing leaders for what was just made."""
        while True:
            try:
                for line in step():
                    done.append(line)
                return
            except Retryable:
                if deadline.passed:
                    raise
                self._pause(_PAUSE_S)

    def _create(self, partitions: int, replication: int) -> Iterator[str]:
        present = self._described()
        missing = [name for name in self.names if name not in present]
        if not missing:
            return
        settings = self._configuration.first_settings
        asked = self._admin.create_topics(
            [
                NewTopic(
                    name,
                    1 if name == self._torn else partitions,
                    replication,
                    config=settings(name, replication=replication),
                )
                for name in missing
            ],
            operation_timeout=_TIMEOUT_S,
        )
        with _mapped("make the topics"):
            for name, future in asked.items():
                future.result(_TIMEOUT_S)
                yield f"{name}: made, with {replication} replica{'s' if replication > 1 else ''} of each partition"

    def _grow(self, partitions: int) -> Iterator[str]:
        described = self._all_described()
        few = [name for name in self._keyed if len(described[name]) < partitions]
        if not few:
            return
        asked = self._admin.create_partitions([NewPartitions(name, partitions) for name in few])
        with _mapped("add partitions"):
            for name, future in asked.items():
                future.result(_TIMEOUT_S)
                yield f"{name}: {len(described[name])} partitions became {partitions}"

    def _configure(self, replication: int) -> Iterator[str]:
        described = self._all_described()
        for name in self.names:
            wrong = self._wrong_settings(name, min(*described[name], replication))
            if not wrong:
                continue
            entries = [
                ConfigEntry(setting, wanted, incremental_operation=AlterConfigOpType.SET)
                for setting, (_, wanted) in wrong.items()
            ]
            resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
            with _mapped("repair the topics"):
                self._admin.incremental_alter_configs([resource])[resource].result(_TIMEOUT_S)
            for setting, (found, wanted) in wrong.items():
                yield f"{name}: {setting} was {found} and is {wanted}"

    def _begin(self) -> Iterator[str]:
        """Commit a first offset where a group has none. Kafka refuses it while workers run: then they begin at 0 by
        themselves, where that skips nothing."""
        for lane in Lane:
            missing = [
                TopicPartition(one.topic, one.partition, reach.first)
                for one, reach in self.reach(lane).items()
                if reach.committed is None
            ]
            if not missing:
                continue
            group = self._configuration.group(lane)
            asked = self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, missing)])
            with _mapped("commit the first offsets"):
                try:
                    asked[group].result(_TIMEOUT_S)
                except KafkaException as error:
                    if error_of(error).code() in (KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID):
                        continue
                    raise
            yield f"{self._configuration.topic(lane)}: {group} begins at the first message of {len(missing)} partitions"

    def _wrong_settings(self, name: str, replication: int) -> Mapping[str, tuple[str, str]]:
        """Settings that could lose or truncate messages: what is set, and what must be."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        with _mapped("read the topics' settings"):
            found = self._admin.describe_configs([resource])[resource].result(_TIMEOUT_S)
        wanted = self._configuration.topic_settings(name, replication=replication)
        return {
            setting: (found[setting].value, value)
            for setting, value in wanted.items()
            if not _is_as_wanted(setting, found[setting].value, value)
        }

    def _described(self) -> Mapping[str, Sequence[int]]:
        """By topic that exists, the number of replicas of each partition."""
        asked = self._admin.describe_topics(TopicCollection(list(self.names)), request_timeout=_TIMEOUT_S)
        described: dict[str, Sequence[int]] = {}
        for name, future in asked.items():
            with _mapped("describe the topics"):
                try:
                    topic = future.result(_TIMEOUT_S)
                except KafkaException as error:
                    if error_of(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                        continue
                    raise
            described[name] = [len(partition.replicas) for partition in topic.partitions]
        return described

    def _all_described(self) -> Mapping[str, Sequence[int]]:
        described = self._described()
        if missing := [name for name in self.names if name not in described]:
            raise Retryable(f"topics were made and are not seen by every broker yet: {', '.join(missing)}")
        return described

    def _partitions(self, lane: Lane) -> list[TopicPartition]:
        name = self._configuration.topic(lane)
        return [TopicPartition(name, number) for number in range(len(self._described().get(name, ())))]

    def _committed(self, lane: Lane, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        if not partitions:
            return {}
        # The administrative request for it crashes the client (2.16) when it asks about a group that is not there.
        reader = Consumer(self._configuration.consumer(lane))
        try:
            with _mapped("read the group's offsets"):
                found = reader.committed(list(partitions), timeout=_TIMEOUT_S)
        finally:
            reader.close()
        return {TopicPartition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


class _mapped:  # noqa: N801 - reads as a statement
    """Kafka's refusals as ours, with what was attempted."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KafkaException):
            raise admin_failed(self._what, error) from error
        if isinstance(error, TimeoutError):
            raise Retryable(f"could not {self._what}: Kafka did not answer within {_TIMEOUT_S:g} s") from error


def _is_as_wanted(setting: str, found: str, wanted: str) -> bool:
    return int(found) >= int(wanted) if setting in _AT_LEAST else found == wanted


def _layout_findings(name: str, replicas: Sequence[int], partitions: int, replication: int) -> Iterator[Finding]:
    if len(replicas) < partitions:
        text = f"has {len(replicas)} partitions, not {partitions}: run sansfilm topics apply"
        yield Finding(level="warning", topic=name, text=text)
    if 2 <= min(replicas) < replication:
        text = f"has {min(replicas)} replicas, not {replication}: add them with kafka-reassign-partitions"
        yield Finding(level="warning", topic=name, text=text)


def _offset_findings(found: Mapping[TopicPartition, Reach]) -> Iterator[Finding]:
    for one, reach in sorted(found.items()):
        name = f"{one.topic}/{one.partition}"
        if reach.committed is None:
            level: Literal["error", "warning"] = "error" if reach.first > 0 else "warning"
            yield Finding(level=level, topic=name, text="has no committed offset: run sansfilm topics apply")
        elif reach.committed < reach.first:
            text = f"messages {reach.committed} to {reach.first - 1} were deleted before they were committed"
            yield Finding(level="error", topic=name, text=text)
        elif reach.committed > reach.end:
            text = f"ends at {reach.end}, before the committed offset {reach.committed}: messages were truncated"
            yield Finding(level="error", topic=name, text=text)
