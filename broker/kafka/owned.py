"""What a consumer knows of the partitions it owns: how far each is committed, given and read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from confluent_kafka import Message as Record
from confluent_kafka import TopicPartition

from broker.log import Position

#: Assumed of a message before the first one was seen: a slice of an MR.
_SIZE_BYTES_ASSUMED = 512 * 1024
#: Weight of the newest message in the running mean.
_NEWEST = 0.01


@dataclass(slots=True, kw_only=True)
class Stream:
    """One partition. Offsets are those of the next message."""

    topic: str
    partition: int
    #: None until the group's coordinator has said it.
    committed: int | None = None
    #: Behind the last message that was given to the owner.
    given: int = 0
    #: Behind the last message that was given or set aside.
    passed: int = 0
    #: Up to here messages were set aside with nothing in the owner's hands; to be committed without the owner.
    settled: int = 0
    #: Behind the last message that came from the client.
    read: int = 0

    @property
    def name(self) -> str:
        """What `Position.stream` says."""
        return stream_name(self.topic, self.partition)

    def at(self, offset: int) -> TopicPartition:
        """The partition at an offset, as the client takes it."""
        return TopicPartition(self.topic, self.partition, offset)

    def learn(self, committed: int) -> None:
        """Begin at what the group has committed."""
        self.committed = self.given = self.passed = self.settled = committed

    def settle(self) -> bool:
        """A message was set aside; whether everything passed may be committed, as the owner holds nothing."""
        if self.given > max(self.settled, self.committed or 0):
            return False
        self.given = self.settled = self.passed
        return True

    def target(self, next_offset: int) -> int | None:
        """What to commit when the owner has done everything before `next_offset`; None if that is nothing new.

        Messages set aside behind the last one given are done with it.
        """
        target = max(next_offset, self.passed) if next_offset >= self.given else next_offset
        return target if self.committed is None or target > self.committed else None


class Owned:
    """The partitions of one consumer, and what the client gave of them that the owner has not taken yet."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self._waiting: deque[Record] = deque()
        self._size_bytes_mean = float(_SIZE_BYTES_ASSUMED)

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def __getitem__(self, name: str) -> Stream:
        return self._streams[name]

    def __contains__(self, name: str) -> bool:
        return name in self._streams

    @property
    def waiting(self) -> deque[Record]:
        """Records not taken yet, in their order."""
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        return sum(len(record) for record in self._waiting)

    @property
    def unknown(self) -> list[Stream]:
        """Streams of which it is not known yet how far they are committed."""
        return [stream for stream in self if stream.committed is None]

    def add(self, partitions: Iterable[TopicPartition]) -> None:
        """These are ours from now on."""
        for one in partitions:
            stream = Stream(topic=one.topic, partition=one.partition)
            self._streams[stream.name] = stream

    def remove(self, names: Collection[str]) -> None:
        """These are no longer ours."""
        for name in names:
            self._streams.pop(name, None)
        self.drop(names)

    def drop(self, names: Collection[str]) -> None:
        """Forget what waits of these."""
        self._waiting = deque(record for record in self._waiting if record_stream(record) not in names)

    def append(self, record: Record) -> None:
        """The client gave a record of a stream that is ours."""
        self._streams[record_stream(record)].read = (record.offset() or 0) + 1
        self._waiting.append(record)
        self._size_bytes_mean += _NEWEST * (len(record) - self._size_bytes_mean)

    def targets(self, positions: Iterable[Position]) -> dict[str, int]:
        """What to commit, by stream, of positions whose streams are ours."""
        wanted: dict[str, int] = {}
        for position in positions:
            if position.stream in self._streams:
                target = self._streams[position.stream].target(position.next_offset)
                if target is not None:
                    wanted[position.stream] = max(target, wanted.get(position.stream, 0))
        return wanted

    def lag_messages(self, high_watermark: Callable[[Stream], int]) -> int:
        """Messages that are not committed, as far as is known."""
        known = [stream for stream in self if stream.committed is not None]
        return sum(max(0, max(high_watermark(one), one.read) - (one.committed or 0)) for one in known)

    def estimated_bytes(self, messages: int) -> int:
        """About how large so many messages are: by the running mean of what was read."""
        return int(messages * self._size_bytes_mean)


def stream_name(topic: str, partition: int) -> str:
    """The name of a partition as a stream of the log."""
    return f"{topic}/{partition}"


def record_stream(record: Record) -> str:
    """The stream that a record lies in."""
    return stream_name(record.topic() or "", record.partition() or 0)
