"""A stretch of the log, read beside the workers: by nobody's group, and without a trace in Kafka.

Its ends are moments or offsets of partitions; a moment is compared with the messages' timestamps, which the
brokers gave them. So what an edge spooled while the line was away lies where it was shipped, not where it was
received.

Nothing is read that the workers have not committed: it is theirs, and may well be on its way into the archive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin._listoffsets import OffsetSpec

from broker.kafka.binding import from_kafka
from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import Complaints, consumed, error_of, no_topic
from broker.kafka.owned import record_stream, stream_name
from broker.kafka.topics import LogTopics, Reach
from broker.log import Position, Taken
from runtime.errors import Misconfigured, Retryable
from schemas.message import Lane

Mark = datetime | int | Mapping[int, int]
"""An end of a stretch: a moment, one offset for every partition, or offsets of some partitions and none of others."""

#: Longest silence of the brokers before reading ends: what is spent between two takes is none of theirs.
SILENCE_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What of one partition belongs to a stretch, and what of that can be read: `first` up to `end`, `end` excluded."""

    lane: Lane
    topic: str
    partition: int
    first: int
    end: int
    #: Messages that were asked for and are deleted.
    deleted: int = 0
    #: Whether older messages were deleted of which nobody knows any more whether they belonged to it.
    may_lack: bool = False
    #: Messages that were asked for and that the workers have not committed yet.
    waiting: int = 0

    @property
    def stream(self) -> str:
        """What `Position.stream` says."""
        return stream_name(self.topic, self.partition)

    @property
    def messages(self) -> int:
        """How many can be read."""
        return self.end - self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Torn:
    """A message that is none of ours, or no longer what was sent; the workers have set it aside."""

    stream: str
    offset: int


def find_spans(configuration: KafkaConfiguration, lane: Lane, since: Mark, until: Mark | None) -> Sequence[Span]:
    """The spans of a lane from `since` up to `until`, excluded; without `until` up to what the workers have committed.

    When deleted messages came nobody knows any more; they belong to no stretch that begins at a moment only if a
    message that is left is older than it.

    Raises:
        Misconfigured: there is no such topic or partition.
        Retryable: Kafka does not answer.
    """
    topics, topic = LogTopics(configuration), configuration.topic(lane)
    reach = topics.reach(lane)
    if not reach:
        raise no_topic(topic)
    numbers = _numbers(topic, len(reach), since, until)
    asked = [one for one in reach if one.partition in numbers]
    begins = _offsets(topics, asked, since)
    ends = _offsets(topics, asked, until)
    by_time = isinstance(since, datetime)
    return [_span(lane, one, reach[one], begins[one], ends[one], by_time=by_time) for one in sorted(asked)]


class StretchReader:
    """Reads spans of one lane, partitions side by side, each in its order. A `workers.batches.Source`. Close it.

    It is assigned its partitions and joins no group, so that no worker loses one; it commits nothing.
    """

    def __init__(
        self,
        configuration: KafkaConfiguration,
        spans: Sequence[Span],
        *,
        silence_max_s: float = SILENCE_MAX_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration = configuration
        self._silence_max_s = silence_max_s
        self._monotonic_s = monotonic_s
        self._silent_s = 0.0
        self._group = configuration.reader()["group.id"]
        self._complaints = Complaints("reader", configuration.security)
        self._left = {span.stream: span for span in spans if span.messages > 0}
        #: What was met so far and is no message.
        self.torn: list[Torn] = []
        self._client = Consumer(configuration.reader() | {"error_cb": self._complaints.note})
        self._client.assign([TopicPartition(one.topic, one.partition, one.first) for one in self._left.values()])

    @property
    def is_done(self) -> bool:
        """Whether everything was taken."""
        return not self._left

    def take(self, *, max_messages: int, max_bytes: int, wait_s: float) -> Sequence[Taken]:
        """See `broker.log.Consumer.take`; what is torn is left in `torn`.

        Raises:
            Misconfigured, Fatal: Kafka refuses us the topic, or it cannot be read.
            Retryable: no broker answers, or messages were deleted meanwhile.
        """
        if self.is_done:
            return ()
        count = max(1, min(max_messages, max_bytes // self._configuration.message_max_bytes))
        began_s = self._monotonic_s()
        records = self._client.consume(count, wait_s)
        self._silent_s = 0.0 if records else self._silent_s + self._monotonic_s() - began_s
        if records:
            self._complaints.over()
        elif self._silent_s >= self._silence_max_s:
            raise Retryable(f"Kafka gave nothing for {self._silence_max_s:g} s and the stretch is not at its end")
        found = (self._found(record) for record in records)
        return [taken for taken in found if taken is not None]

    def close(self) -> None:
        """Leave no trace."""
        self._client.close()

    def _found(self, record: Record) -> Taken | None:
        error, span = record.error(), self._left.get(record_stream(record))
        offset = record.offset() or 0
        if error is not None:
            self._noted(error, span)
            return None
        if span is None:
            return None
        if offset >= span.end - 1:
            self._finish(span)
        if offset >= span.end:
            return None
        message = from_kafka(record.headers(), record.value() or b"")
        if message is None:
            self.torn.append(Torn(stream=span.stream, offset=offset))
            return None
        return Taken(message=message, position=Position(stream=span.stream, offset=offset, next_offset=offset + 1))

    def _finish(self, span: Span) -> None:
        """Nothing more of this partition is wanted, nor fetched ahead."""
        del self._left[span.stream]
        try:
            self._client.pause([TopicPartition(span.topic, span.partition)])
        except KafkaException as error:
            raise Retryable(f"a partition cannot be left alone: {error_of(error).name()}") from error

    def _noted(self, error: KafkaError, span: Span | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if span is not None:  # what was last in it was no message but a mark of Kafka's own
                self._finish(span)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise Retryable("messages of the stretch were deleted while it was read: run the command again")
        elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise Misconfigured(f"Kafka refuses the group {self._group} to this user: give it Read on that group")
        else:
            topic = span.topic if span is not None else "the log"
            failure = consumed(error, topic)
            if failure is not None:
                raise failure
            self._complaints.note(error)


def _numbers(topic: str, partitions: int, since: Mark, until: Mark | None) -> set[int]:
    """The partitions that are meant: those that an end names, otherwise all."""
    named = [set(mark) for mark in (since, until) if isinstance(mark, Mapping)]
    if not named:
        return set(range(partitions))
    if len(named) == 2 and named[0] != named[1]:
        raise Misconfigured("both ends of a stretch must name the same partitions")
    if strange := sorted(number for number in named[0] if number >= partitions):
        raise Misconfigured(f"there is no partition {strange[0]} of {topic}: it has {partitions}")
    return named[0]


def _offsets(
    topics: LogTopics, asked: Sequence[TopicPartition], mark: Mark | None
) -> Mapping[TopicPartition, int | None]:
    """Where a mark lies in each partition; None: behind everything."""
    if isinstance(mark, datetime):
        found = topics.offsets(asked, OffsetSpec.for_timestamp(int(mark.timestamp() * 1000)))
        return {one: offset if offset >= 0 else None for one, offset in found.items()}
    if isinstance(mark, Mapping):
        return {one: mark[one.partition] for one in asked}
    return dict.fromkeys(asked, mark)


def _span(lane: Lane, at: TopicPartition, reach: Reach, begin: int | None, end: int | None, *, by_time: bool) -> Span:
    end = reach.end if end is None else min(end, reach.end)
    begin = reach.end if begin is None else begin
    first = max(begin, reach.first)
    done = min(reach.done, reach.end)
    stop = min(end, done)
    return Span(
        lane=lane,
        topic=at.topic,
        partition=at.partition,
        first=first,
        end=max(first, stop),
        deleted=max(0, min(end, reach.first) - begin),
        may_lack=by_time and 0 < reach.first == first,
        waiting=max(0, end - max(first, done)),
    )
