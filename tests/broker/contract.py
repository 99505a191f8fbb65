"""What every log promises: one class of tests, run on each implementation of `broker.log`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import pytest

from broker.log import Consumer, Publisher, Taken
from runtime.errors import Retryable
from schemas.message import Lane, Message
from tests.broker.messages import claim_check, decision, instance, number_of
from tests.waiting import until

TIMEOUT_S = 20.0


class Log(Protocol):
    """A fresh log; what it opened is closed by the fixture."""

    def publisher(self) -> Publisher: ...

    def consumer(self, lane: Lane = Lane.ROUTINE) -> Consumer:
        """A consumer of the one group; an earlier one must have been closed."""


def publish(publisher: Publisher, messages: Iterable[Message]) -> None:
    """Publish and wait until all are durable."""
    for future in [publisher.publish(message) for message in messages]:
        future.result(TIMEOUT_S)


def take_all(consumer: Consumer, expected: int, **bounds: int) -> list[Taken]:
    """Take until so many came, within a deadline; again after a fault that passes."""
    taken: list[Taken] = []
    deadline = time.monotonic() + TIMEOUT_S
    limits = {"max_messages": 100, "max_bytes": 10_000_000} | bounds
    while len(taken) < expected and time.monotonic() < deadline:
        with suppress(Retryable):
            taken += consumer.take(**limits, wait_s=1.0)
    return taken


def numbers(taken: Iterable[Taken]) -> list[int]:
    return [number_of(one.message) for one in taken]


def size_bytes(taken: Iterable[Taken]) -> int:
    return sum(len(one.message.value) for one in taken)


def fits(taken: Sequence[Taken], *, max_messages: int, max_bytes: int) -> bool:
    """Whether one take could have given all of these."""
    return len(taken) <= max_messages and size_bytes(taken) <= max_bytes


def nothing_left(consumer: Consumer) -> bool:
    return not consumer.take(max_messages=10, max_bytes=1000, wait_s=0)


class LogContract:
    """Subclasses give the fixture `log`."""

    #: Whether what is durable is at hand at once. A log behind a network may give less than the bounds allow, and
    #: learns only after a moment how much there is.
    at_once = True

    def batches(self, consumer: Consumer, expected: int, **bounds: int) -> list[Sequence[Taken]]:
        """Take within the bounds until so many came; joined as far as the bounds allow, where less may be given."""
        batches: list[list[Taken]] = []
        limits = {"max_messages": 100, "max_bytes": 10_000_000} | bounds
        deadline = time.monotonic() + TIMEOUT_S
        while sum(map(len, batches)) < expected and time.monotonic() < deadline:
            batch = list(consumer.take(**limits, wait_s=1.0))
            assert len(batch) <= limits["max_messages"]
            assert len(batch) <= 1 or size_bytes(batch) <= limits["max_bytes"]
            if self.at_once or not batches or not fits([*batches[-1], *batch], **limits):
                batches.append(batch)
            else:
                batches[-1] += batch
        return list(batches)

    def lag_becomes(self, consumer: Consumer, messages: int) -> bool:
        """Whether the lag is so many messages, at once or soon."""
        expected = {Lane.ROUTINE: messages}
        if self.at_once:
            return consumer.lag() == expected
        return until(lambda: consumer.lag() == expected, what=f"a lag of {messages}")

    @pytest.fixture
    def log(self) -> Iterator[Log]:
        raise NotImplementedError

    def test_what_is_published_is_taken_whole_and_in_order(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        sent = [instance(n, size_bytes=size) for n, size in enumerate((1, 511, 512, 513, 100_000))]
        sent += [claim_check(5), decision(6)]

        publish(publisher, sent)
        taken = take_all(consumer, len(sent))

        assert [one.message.attributes for one in taken] == [one.attributes for one in sent]
        assert [bytes(one.message.value) for one in taken] == [bytes(one.value) for one in sent]
        assert nothing_left(consumer)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer_may_be_published_and_reused_once_durable(
        self, log: Log, kind: Callable[[bytes], bytes | bytearray | memoryview]
    ) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        value = instance(1).value
        buffer = kind(value)

        publish(publisher, [Message(attributes=instance(1).attributes, value=buffer)])
        if isinstance(buffer, bytearray):
            buffer[:] = bytes(len(buffer))

        assert [bytes(one.message.value) for one in take_all(consumer, 1)] == [value]

    def test_positions_agree_at_both_ends(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        futures = [publisher.publish(instance(n)) for n in range(3)]
        told = [future.result(TIMEOUT_S) for future in futures]

        assert [one.position for one in take_all(consumer, 3)] == told
        assert told[0].next_offset > told[0].offset

    def test_the_bound_of_messages_holds(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, map(instance, range(7)))

        batches = self.batches(consumer, 7, max_messages=3)

        assert [len(batch) for batch in batches] == [3, 3, 1]
        assert [n for batch in batches for n in numbers(batch)] == list(range(7))

    def test_the_bound_of_bytes_holds(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, [instance(n, size_bytes=1000) for n in range(5)])

        batches = self.batches(consumer, 5, max_bytes=2500)

        assert [numbers(batch) for batch in batches] == [[0, 1], [2, 3], [4]]

    def test_a_message_over_the_bound_is_taken_alone(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, [instance(0, size_bytes=5000), instance(1), instance(2, size_bytes=5000)])

        batches = self.batches(consumer, 3, max_bytes=1000)

        assert [numbers(batch) for batch in batches] == [[0], [1], [2]]

    def test_an_empty_log_answers_after_the_wait(self, log: Log) -> None:
        consumer = log.consumer()
        start = time.monotonic()
        assert consumer.take(max_messages=1, max_bytes=1, wait_s=0.05) == []
        assert time.monotonic() - start >= 0.05

    def test_a_waiting_consumer_is_served_when_something_comes(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        taken: list[Sequence[Taken]] = []
        thread = threading.Thread(
            target=lambda: taken.append(consumer.take(max_messages=1, max_bytes=1, wait_s=TIMEOUT_S))
        )
        thread.start()
        publish(publisher, [instance(1)])
        thread.join(TIMEOUT_S)
        assert [numbers(batch) for batch in taken] == [[1]]

    def test_rewind_gives_again_what_was_not_committed(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, map(instance, range(5)))
        taken = take_all(consumer, 5)

        consumer.commit([one.position for one in taken[:2]])
        consumer.rewind()

        assert numbers(take_all(consumer, 3)) == [2, 3, 4]

    def test_a_commit_covers_everything_before_it(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, map(instance, range(4)))
        taken = take_all(consumer, 4)

        consumer.commit([taken[2].position])
        consumer.commit([taken[0].position])  # going back is ignored
        consumer.rewind()

        assert numbers(take_all(consumer, 1)) == [3]

    def test_commits_survive_reopening_and_the_rest_comes_again(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, map(instance, range(5)))
        taken = take_all(consumer, 5)
        consumer.commit([one.position for one in taken[:3]])
        consumer.close()

        again = log.consumer()

        assert numbers(take_all(again, 2)) == [3, 4]
        assert nothing_left(again)

    def test_a_position_taken_before_a_restart_may_be_committed_after_it(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        publish(publisher, map(instance, range(3)))
        position = take_all(consumer, 3)[1].position
        consumer.close()

        again = log.consumer()
        again.commit([position])

        assert self.lag_becomes(again, 1)
        assert numbers(take_all(again, 1)) == [2]

    def test_lag_and_bytes_go_to_nothing(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        assert (consumer.lag(), consumer.uncommitted_bytes()) == ({Lane.ROUTINE: 0}, 0)
        for n in range(4):
            publish(publisher, [instance(n)])
            assert self.lag_becomes(consumer, n + 1)
        assert consumer.uncommitted_bytes() >= 4 * 600

        taken = take_all(consumer, 4)
        assert self.lag_becomes(consumer, 4)
        consumer.commit([taken[0].position])
        assert self.lag_becomes(consumer, 3)
        consumer.commit([taken[3].position])

        assert (consumer.lag(), consumer.uncommitted_bytes()) == ({Lane.ROUTINE: 0}, 0)

    def test_lanes_are_apart(self, log: Log) -> None:
        publisher = log.publisher()
        publish(publisher, [instance(0), instance(1, lane=Lane.URGENT), instance(2, lane=Lane.BULK)])

        found = {lane: numbers(take_all(log.consumer(lane), 1)) for lane in Lane}

        assert found == {Lane.ROUTINE: [0], Lane.URGENT: [1], Lane.BULK: [2]}

    def test_many_senders_and_publishers_at_once(self, log: Log) -> None:
        publishers = [log.publisher(), log.publisher()]
        consumer = log.consumer()

        def send(sender: int) -> None:
            publish(publishers[sender % 2], (instance(sender * 100 + n) for n in range(50)))

        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
        for thread in threads:
            thread.start()
        taken = take_all(consumer, 200)
        for thread in threads:
            thread.join(TIMEOUT_S)

        assert sorted(numbers(taken)) == sorted(sender * 100 + n for sender in range(4) for n in range(50))
        assert nothing_left(consumer)
        for stream in {one.position.stream for one in taken}:
            offsets = [one.position.offset for one in taken if one.position.stream == stream]
            assert offsets == sorted(offsets)

    def test_close_writes_what_waits_and_then_refuses(self, log: Log) -> None:
        publisher, consumer = log.publisher(), log.consumer()
        futures = [publisher.publish(instance(n)) for n in range(20)]
        publisher.close()
        publisher.close()

        assert all(future.done() and future.exception() is None for future in futures)
        with pytest.raises(Retryable):
            publisher.publish(instance(99))
        assert numbers(take_all(consumer, 20)) == list(range(20))

    def test_a_restarted_publisher_goes_on_behind(self, log: Log) -> None:
        for start in (0, 3):
            publisher = log.publisher()
            publish(publisher, (instance(start + n) for n in range(3)))
            publisher.close()
        consumer = log.consumer()
        assert sorted(numbers(take_all(consumer, 6))) == list(range(6))
