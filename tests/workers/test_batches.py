"""Batches over the real log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.local import LocalConsumer
from runtime.clock import SystemClock
from schemas.message import Lane
from tests.datasets import mr_dataset
from tests.workers.pool import Pool, message
from workers.batches import Batches, BatchLimits, weight_bytes


@pytest.fixture
def consumer(pool: Pool) -> Iterator[LocalConsumer]:
    with closing(LocalConsumer(pool.settings.log_dir, lane=Lane.ROUTINE)) as consumer:
        yield consumer


def sizes(consumer: LocalConsumer, count: int, **limits: float) -> list[int]:
    """How many messages each of the next batches has."""
    given = {"max_messages": 100, "max_bytes": 1 << 30, "wait_s": 0.0, **limits}
    batches = Batches(consumer, BatchLimits(**given), SystemClock())  # type: ignore[arg-type]
    return [len(batches.next(threading.Event())) for _ in range(count)]


def test_a_batch_is_bounded_by_count(pool: Pool, consumer: LocalConsumer) -> None:
    pool.publish(*(message(bytes(100)) for _ in range(5)))
    assert sizes(consumer, 4, max_messages=2) == [2, 2, 1, 0]


def test_a_batch_is_bounded_by_bytes(pool: Pool, consumer: LocalConsumer) -> None:
    pool.publish(*(message(bytes(1000)) for _ in range(5)))
    assert sizes(consumer, 3, max_bytes=2500) == [2, 2, 1]


def test_no_more_is_held_than_a_batch_and_one_message(pool: Pool, consumer: LocalConsumer) -> None:
    pool.publish(*(message(bytes(1000)) for _ in range(7)))
    batches = Batches(consumer, BatchLimits(max_messages=100, max_bytes=3500, wait_s=1.0), SystemClock())
    while given := batches.next(threading.Event()):
        assert len(given) + len(batches._waiting) <= 4


def test_one_over_the_bound_goes_alone(pool: Pool, consumer: LocalConsumer) -> None:
    pool.publish(message(bytes(100)), message(bytes(9000)), message(bytes(100)))
    assert sizes(consumer, 3, max_bytes=2500) == [1, 1, 1]


def test_a_claim_check_weighs_what_it_names(pool: Pool, consumer: LocalConsumer) -> None:
    claims = [pool.claim(mr_dataset(number)) for number in (1, 2)]
    pool.publish(*claims)
    assert sizes(consumer, 2, max_bytes=claims[0].attributes.size_bytes + 1) == [1, 1]
    assert claims[0].value == b""


def test_waiting_gathers_what_comes_meanwhile(pool: Pool, consumer: LocalConsumer) -> None:
    pool.publish(message(bytes(10)))
    late = threading.Thread(target=pool.publish, args=[message(bytes(10))])
    late.start()
    assert sizes(consumer, 1, wait_s=20.0, max_messages=2) == [2]
    late.join()


def test_nothing_is_taken_after_a_stop(pool: Pool, consumer: LocalConsumer) -> None:
    pool.publish(message(bytes(10)))
    stop = threading.Event()
    stop.set()
    batches = Batches(consumer, BatchLimits(max_messages=1, max_bytes=1, wait_s=1), SystemClock())
    assert batches.next(stop) == ()
    (taken,) = batches.next(threading.Event())
    assert weight_bytes(taken) == 10
