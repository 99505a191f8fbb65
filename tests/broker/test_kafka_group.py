"""Several members of a lane's group: partitions are handed over, taken over, and lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.kafka import KafkaConfiguration, KafkaConsumer, KafkaPublisher
from broker.log import Taken
from region.kafka import KafkaBroker
from runtime.errors import Retryable
from schemas.message import Lane, Message
from tests.broker.contract import TIMEOUT_S, numbers, publish, take_all
from tests.broker.kafka_actor import COMMITTED
from tests.broker.messages import instance, number_of
from tests.region.kafka import fresh, frozen
from tests.waiting import until

ROOT = Path(__file__).parents[2]


def of_study(number: int) -> Message:
    """An instance of one of many studies, so that every partition gets some."""
    message = instance(number)
    return replace(message, attributes=replace(message.attributes, study_uid=f"1.2.3.{number % 40}"))


def fill(configuration: KafkaConfiguration, numbers: range) -> None:
    publisher = KafkaPublisher(configuration)
    publish(publisher, map(of_study, numbers))
    publisher.close()


@contextmanager
def member(configuration: KafkaConfiguration, **options: float) -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(configuration, lane=Lane.ROUTINE, **options)  # type: ignore[arg-type]
    try:
        yield consumer
    finally:
        consumer.close()


class Worker(threading.Thread):
    """Takes, holds a batch for a moment, commits it; finishes what it holds of streams that go."""

    def __init__(self, configuration: KafkaConfiguration) -> None:
        super().__init__(daemon=True)
        self.consumer = KafkaConsumer(configuration, lane=Lane.ROUTINE)
        self.consumer.on_revoke(self.finish)
        self.done: list[int] = []
        self.given_up: list[str] = []
        self.faults: list[BaseException] = []
        self._in_hand: list[Taken] = []
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                taken = self.consumer.take(max_messages=7, max_bytes=10**6, wait_s=0.1)
                self._in_hand += taken
                if len(self._in_hand) > 20 or not taken:
                    self._commit(self._in_hand)
                    self._in_hand = []
            self.consumer.close()
        except BaseException as error:
            self.faults.append(error)
            raise

    def finish(self, streams: Collection[str]) -> None:
        self._commit([one for one in self._in_hand if one.position.stream in streams])
        self._in_hand = [one for one in self._in_hand if one.position.stream not in streams]
        self.given_up += streams

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(TIMEOUT_S)
        assert not self.is_alive()
        assert not self.faults

    def _commit(self, taken: list[Taken]) -> None:
        self.consumer.commit([one.position for one in taken])
        self.done += numbers(taken)


def test_partitions_are_handed_over_without_a_loss_or_a_repetition(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka, partitions=4)
    first, second = Worker(configuration), Worker(configuration)
    fill(configuration, range(400))
    first.start()
    until(lambda: len(first.done) > 50)

    second.start()  # joins while the first one has its hands full
    until(lambda: len(second.consumer.streams) == 2 == len(first.consumer.streams), what="a fair share")
    fill(configuration, range(400, 600))
    until(lambda: len(first.done) + len(second.done) >= 600)
    assert len(first.given_up) == 2

    first.stop()
    until(lambda: len(second.consumer.streams) == 4, what="the taking over")
    fill(configuration, range(600, 700))
    until(lambda: len(first.done) + len(second.done) >= 700)
    second.stop()
    assert sorted(first.done + second.done) == list(range(700))


def test_what_a_killed_member_had_not_committed_comes_to_another(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka, partitions=2)
    fill(configuration, range(60))
    command = [sys.executable, "-m", "tests.broker.kafka_actor", configuration.bootstrap, configuration.prefix]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as actor:
        assert actor.stdout is not None
        said = [actor.stdout.readline().split() for _ in range(COMMITTED + 20)]
        actor.kill()
    committed = {int(number) for word, number in said if word == "committed"}

    with member(configuration) as consumer:
        began_s = time.monotonic()
        taken = take_all(consumer, 60 - COMMITTED)
        assert time.monotonic() - began_s < 12.0  # the session timeout is 6 s here
    assert sorted(numbers(taken)) == sorted(set(range(60)) - committed)


def test_a_member_that_does_not_take_in_time_loses_its_partitions_and_is_told(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka, partitions=1)
    fill(configuration, range(10))
    told: list[Collection[str]] = []
    with member(replace(configuration, poll_interval_max_s=1.0)) as slow:
        slow.on_revoke(told.append)
        held = take_all(slow, 10)
        with member(configuration) as other:
            elsewhere = take_all(other, 10)
            assert numbers(elsewhere) == numbers(held)
            other.commit([one.position for one in elsewhere[:4]])

            slow.commit([one.position for one in held])  # the loss is noticed here, and its streams are ignored
            assert told == [{held[0].position.stream}]
            assert not slow.streams
            other.rewind()
            assert numbers(take_all(other, 6)) == list(range(4, 10))


def test_a_frozen_broker_makes_a_commit_retryable_and_close_still_ends(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka)
    fill(configuration, range(5))
    with member(configuration, commit_timeout_s=0.3, close_timeout_s=1.0) as consumer:
        taken = take_all(consumer, 5)
        with frozen(kafka):
            with pytest.raises(Retryable, match="not acknowledged within"):
                consumer.commit([taken[0].position])
            assert consumer.take(max_messages=1, max_bytes=1, wait_s=0.1) == []
        until(lambda: succeeded(lambda: consumer.commit([taken[2].position])))
        with frozen(kafka):
            began_s = time.monotonic()
            consumer.close()
            assert time.monotonic() - began_s < 3.0
    with member(configuration) as again:
        assert [number_of(one.message) for one in take_all(again, 2)] == [3, 4]


def test_an_owner_that_cannot_finish_gives_its_streams_away_all_the_same(kafka: KafkaBroker) -> None:
    configuration = fresh(kafka)
    fill(configuration, range(5))
    consumer = KafkaConsumer(configuration, lane=Lane.ROUTINE, commit_timeout_s=0.3, close_timeout_s=2.0)
    taken = take_all(consumer, 5)
    consumer.on_revoke(lambda _: consumer.commit([taken[4].position]))
    with frozen(kafka), pytest.raises(Retryable):
        consumer.close()
    assert not consumer.streams
    consumer.close()


def succeeded(attempt: Callable[[], None]) -> bool:
    """Whether an attempt passed; a passing fault counts as no."""
    try:
        attempt()
    except Retryable:
        return False
    return True
