"""The reading end of the log on Kafka: one member of the group of a lane's workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from broker.kafka.access import check_access
from broker.kafka.binding import from_kafka
from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import Complaints, consumed, error_of, no_offset, no_topic
from broker.kafka.owned import Owned, Stream, record_stream, stream_name
from broker.kafka.torn import TornTopic
from broker.log import Position, Taken
from runtime import metrics
from runtime.clock import Clock, SystemClock
from runtime.errors import Retryable, SansfilmError
from runtime.lifecycle import Deadline
from runtime.logs import get_logger
from schemas.message import Lane

#: While an offset commit is under way the client is served after 1 ms, then ever more rarely.
_PAUSE_S_MIN, _PAUSE_S_MAX, _PAUSE_GROWTH = 0.001, 0.05, 1.5
_REQUEST_TIMEOUT_S = 10.0
#: The coordinator knows this member in another state than it knows itself; it learns of it by its next heartbeat.
_MEMBERSHIP = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._ASSIGNMENT_LOST,
    }
)


class KafkaConsumer:
    """A `broker.log.Consumer` of one lane on Kafka; the group's members share the topic's partitions.

    The client fetches ahead in its own threads, also while the owner works or commits; rebalances are served in
    `take`, `commit` and `close`, on the thread that calls them. A member that does not take for `poll_interval_max_s`
    loses its partitions; until it takes or commits, a rebalance waits for it, at most that long.
    """

    def __init__(
        self,
        configuration: KafkaConfiguration,
        *,
        lane: Lane,
        clock: Clock | None = None,
        pause: Callable[[float], object] = time.sleep,
        commit_timeout_s: float = 10.0,
        close_timeout_s: float = 10.0,
    ) -> None:
        """Joins the group in the background; `take` gives nothing until partitions are assigned.

        Raises:
            Misconfigured: the lane's topic does not exist, or the brokers refuse us.
            Retryable: no broker answers.
        """
        check_access(configuration)
        self._lane = lane
        self._topic = configuration.topic(lane)
        self._clock = clock or SystemClock()
        self._pause = pause
        self._commit_timeout_s = commit_timeout_s
        self._close_timeout_s = close_timeout_s
        self._message_max_bytes = configuration.message_max_bytes
        self._torn = TornTopic(configuration)
        self._owned = Owned()
        self._finish: Callable[[Collection[str]], None] = lambda _: None
        self._failure: SansfilmError | None = None
        #: Streams taken away inside the call of the client that is under way: it may still give messages of them.
        self._left: set[str] = set()
        self._giving_up = False
        #: Streams whose client is not where we are: it is sent back before anything of them is given.
        self._astray: set[str] = set()
        #: What the coordinator acknowledged since the last commit was sent, and whether it refused something.
        self._acknowledged: dict[str, int] = {}
        self._refused: KafkaError | None = None
        self._closed = False
        self._complaints = Complaints("consumer", configuration.security)
        callbacks = {"error_cb": self._complained, "on_commit": self._committed}
        self._client = Consumer(configuration.consumer(lane) | callbacks)
        self._require_topic()
        self._client.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    @property
    def streams(self) -> Collection[str]:
        """The streams that are this member's now."""
        return [stream.name for stream in self._owned]

    def take(self, *, max_messages: int, max_bytes: int, wait_s: float) -> Sequence[Taken]:
        """See `broker.log.Consumer.take`."""
        deadline = Deadline(wait_s, self._clock.monotonic_s)
        while True:
            self._fill(max_messages, max_bytes, deadline)
            if self._failure is not None:
                raise self._failure
            self._learn()
            self._send_back()
            taken = self._collect(max_messages, max_bytes)
            if taken or deadline.passed:
                return taken

    def commit(self, positions: Iterable[Position]) -> None:
        """See `broker.log.Consumer.commit`.

        Raises:
            Retryable: not acknowledged within `commit_timeout_s`, or refused; commit again.
        """
        wanted = self._owned.targets(positions)
        if wanted:
            self._commit(wanted)
        # What an earlier member took and this one commits is not read again.
        self._astray |= {one.name for one in self._owned if one.name in wanted and one.passed < (one.committed or 0)}

    def on_revoke(self, finish: Callable[[Collection[str]], None]) -> None:
        """See `broker.log.Consumer.on_revoke`."""
        self._finish = finish

    def rewind(self) -> None:
        """See `broker.log.Consumer.rewind`: reads from the committed offsets again."""
        self._learn()
        self._astray |= {stream.name for stream in self._owned if stream.read > (stream.committed or 0)}
        self._send_back()

    def lag(self) -> Mapping[Lane, int]:
        """See `broker.log.Consumer.lag`: of this member's partitions, by what the last fetches said.

        Asks nobody. While the client has read ahead as far as it may, it fetches nothing and newer messages are not
        counted yet.
        """
        return {self._lane: self._owned.lag_messages(self._high_watermark)}

    def uncommitted_bytes(self) -> int:
        """See `broker.log.Consumer.uncommitted_bytes`: an estimate, the lag times the mean size of what was read."""
        return self._owned.estimated_bytes(self.lag()[self._lane])

    def close(self) -> None:
        """Give the partitions back and leave the group, within `close_timeout_s`. May be called again.

        With the brokers away it returns all the same: they notice after the group's session timeout.
        """
        if self._closed:
            return
        self._closed = True
        deadline = Deadline(self._close_timeout_s, self._clock.monotonic_s)
        self._client.unsubscribe()
        try:
            while len(self._owned) and not deadline.passed:
                self._read(1, _PAUSE_S_MAX)
        finally:
            leaving = threading.Thread(target=self._client.close, name="kafka-leaving", daemon=True)
            leaving.start()
            leaving.join(deadline.remaining_s())

    def _fill(self, max_messages: int, max_bytes: int, deadline: Deadline) -> None:
        """Wait for something, then read what is there, up to the bounds and one message over."""
        owned = self._owned
        if not owned.waiting:
            self._read(1, deadline.remaining_s())
        while len(owned.waiting) < max_messages and (room_bytes := max_bytes - owned.waiting_bytes) > 0:
            count = max(1, min(max_messages - len(owned.waiting), room_bytes // self._message_max_bytes))
            if not self._read(count, 0):
                return

    def _read(self, count: int, wait_s: float) -> bool:
        """Serve the client and move up to `count` messages behind those that wait; whether there were any."""
        if not self._giving_up:
            self._left.clear()
        records = self._client.consume(count, wait_s)
        for record in records:
            error, name = record.error(), record_stream(record)
            if error is not None:
                self._noted(error)
            elif name in self._left or name in self._astray:
                self._astray.add(name)  # taken away, and perhaps given back within one call
            elif name in self._owned:
                self._owned.append(record)
        if records:
            self._complaints.over()
        return bool(records)

    def _collect(self, max_messages: int, max_bytes: int) -> list[Taken]:
        taken: list[Taken] = []
        size_bytes = 0
        waiting = self._owned.waiting
        while waiting and len(taken) < max_messages:
            value_bytes = len(waiting[0].value() or b"")
            if taken and size_bytes + value_bytes > max_bytes:
                break
            one = self._taken(waiting[0], alone=not taken)
            if one is None and taken:
                break  # what is damaged is set aside by the next call
            waiting = self._owned.waiting
            waiting.popleft()
            if one is not None:
                taken.append(one)
                size_bytes += value_bytes
        return taken

    def _taken(self, record: Record, *, alone: bool) -> Taken | None:
        """The record as a message; None if it is none: then it is set aside, if `alone`."""
        stream = self._owned[record_stream(record)]
        offset = record.offset() or 0
        message = from_kafka(record.headers(), record.value() or b"")
        if message is not None:
            stream.given = stream.passed = offset + 1
            return Taken(message=message, position=Position(stream=stream.name, offset=offset, next_offset=offset + 1))
        if alone:
            self._torn.keep(record)
            stream.passed = offset + 1
            if stream.settle():
                self._send({stream.name: stream.passed})
        return None

    def _commit(self, wanted: Mapping[str, int]) -> None:
        """Send offsets and wait for the coordinator's word, serving the client meanwhile.

        The client's own synchronous commit waits for ever for a broker that is frozen.
        """
        self._acknowledged = {}
        self._refusal()
        deadline = Deadline(self._commit_timeout_s, self._clock.monotonic_s)
        self._send(wanted)
        if self._giving_up:
            self._confirm(wanted, deadline)
            return
        pause_s = _PAUSE_S_MIN
        while any(self._acknowledged.get(name, -1) < wanted[name] for name in wanted if name in self._owned):
            refused = self._refusal()
            if refused is not None and refused.code() not in _MEMBERSHIP:
                raise Retryable(f"the offset commit was refused: {refused.name()}")
            if deadline.passed:
                raise Retryable(f"the offset commit was not acknowledged within {self._commit_timeout_s:g} s")
            self._pause(pause_s)
            pause_s = min(pause_s * _PAUSE_GROWTH, _PAUSE_S_MAX)
            self._read(1, 0)
            if refused is not None:  # the group has changed: what is still ours is sent again
                self._send({name: offset for name, offset in wanted.items() if name in self._owned})

    def _confirm(self, wanted: Mapping[str, int], deadline: Deadline) -> None:
        """Ask until the coordinator has what was sent. Inside its callbacks the client cannot be served (it aborts)."""
        while missing := [self._owned[name] for name in wanted if (self._owned[name].committed or 0) < wanted[name]]:
            if deadline.passed:
                raise Retryable(f"the offset commit was not confirmed within {self._commit_timeout_s:g} s")
            for stream, offset in self._ask(missing, deadline.remaining_s()):
                stream.committed = max(offset, stream.committed or 0)
            self._pause(_PAUSE_S_MIN)

    def _refusal(self) -> KafkaError | None:
        """What the coordinator refused since this was last asked."""
        refused, self._refused = self._refused, None
        return refused

    def _send(self, wanted: Mapping[str, int]) -> None:
        if not wanted:
            return
        offsets = [self._owned[name].at(offset) for name, offset in wanted.items()]
        try:
            self._client.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            raise Retryable(f"the offset commit failed: {error_of(error).name()}") from error

    def _learn(self) -> None:
        """Ask how far the group has committed what is newly ours."""
        unknown = self._owned.unknown
        if not unknown:
            return
        for stream, offset in self._ask(unknown, _REQUEST_TIMEOUT_S):
            stream.learn(max(offset, 0))

    def _ask(self, streams: Sequence[Stream], timeout_s: float) -> list[tuple[Stream, int]]:
        """How far the group has committed these; negative where it has not."""
        try:
            found = self._client.committed([stream.at(0) for stream in streams], timeout=max(timeout_s, _PAUSE_S_MIN))
        except KafkaException as error:
            raise Retryable(f"the group's coordinator does not answer: {error_of(error).name()}") from error
        return [(stream, one.offset) for stream, one in zip(streams, found, strict=True)]

    def _send_back(self) -> None:
        """Have the client read from the committed offset where it is astray."""
        for stream in self._owned:
            if stream.name not in self._astray:
                continue
            try:
                self._client.seek(stream.at(stream.committed or 0))
            except KafkaException as error:
                # Not read from yet: then it begins there anyway.
                if error_of(error).code() != KafkaError._STATE:
                    raise Retryable(f"a partition cannot be read again now: {error_of(error).name()}") from error
            self._owned.drop([stream.name])
            stream.learn(stream.committed or 0)
            stream.read = 0
        self._astray.clear()

    def _high_watermark(self, stream: Stream) -> int:
        watermarks = self._client.get_watermark_offsets(stream.at(0), cached=True)
        return watermarks[1] if watermarks else 0

    def _require_topic(self) -> None:
        try:
            topic = self._client.list_topics(self._topic, timeout=_REQUEST_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise Retryable(f"no Kafka broker answers: {error_of(error).name()}") from error
        if topic.error is not None:
            raise consumed(topic.error, self._topic) or no_topic(self._topic)

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        metrics.LOG_REBALANCES.labels(kind="assigned").inc()
        self._owned.add(partitions)
        self._client.incremental_assign(self._begun(partitions))
        self._observe()

    def _begun(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where to begin. A partition without a committed offset begins at 0 if nothing was ever deleted from it, as
        one that was just added; otherwise messages may be gone, and an operator must look.

        What cannot be asked now the client asks by itself; then a missing offset ends `take` in any case.
        """
        try:
            found = self._client.committed(partitions, timeout=_REQUEST_TIMEOUT_S)
            for one in found:
                if one.offset < 0:
                    one.offset = 0
                    if self._first_offset(one) > 0:
                        self._failure = no_offset(self._topic)
        except KafkaException:
            return partitions
        for one in found:
            self._owned[stream_name(one.topic, one.partition)].learn(one.offset)
        return found

    def _first_offset(self, partition: TopicPartition) -> int:
        """The first offset that a partition holds. One that was just added may not have a leader yet."""
        deadline = Deadline(_REQUEST_TIMEOUT_S, self._clock.monotonic_s)
        while True:
            try:
                return self._client.get_watermark_offsets(partition, timeout=_REQUEST_TIMEOUT_S)[0]
            except KafkaException:
                if deadline.passed:
                    raise
                self._pause(_PAUSE_S_MAX)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up("revoked", partitions, ours=True)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up("lost", partitions, ours=False)

    def _give_up(self, kind: str, partitions: list[TopicPartition], *, ours: bool) -> None:
        """Let the owner finish, then give the partitions away. Lost ones are another member's already."""
        names = {stream_name(one.topic, one.partition) for one in partitions}
        metrics.LOG_REBALANCES.labels(kind=kind).inc()
        get_logger().info("partitions_given_up", lane=self._lane.value, kind=kind, partitions=len(names))
        self._owned.drop(names)
        if not ours:
            self._owned.remove(names)
        self._giving_up = True
        try:
            self._finish(names)
        finally:
            self._giving_up = False
            self._owned.remove(names)
            self._left |= names
            self._client.incremental_unassign(partitions)
            self._observe()

    def _observe(self) -> None:
        metrics.LOG_PARTITIONS.labels(lane=self._lane.value).set(len(self._owned))

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            name = stream_name(one.topic, one.partition)
            refused = error if error is not None else one.error
            if refused is not None:
                self._refused = refused
            elif name in self._owned:
                self._acknowledged[name] = max(one.offset, self._acknowledged.get(name, 0))
                self._owned[name].committed = max(one.offset, self._owned[name].committed or 0)

    def _complained(self, error: KafkaError) -> None:
        self._complaints.note(error)
        if error.fatal():
            self._failure = consumed(error, self._topic)

    def _noted(self, error: KafkaError) -> None:
        failure = consumed(error, self._topic)
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            get_logger().warning("partitions_lost_by_silence", lane=self._lane.value)
        elif failure is None:
            self._complaints.note(error)
        else:
            self._failure = self._failure or failure
