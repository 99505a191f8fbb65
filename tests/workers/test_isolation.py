"""Who may be in flight beside whom."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from runtime.retries import Stopped
from tests.waiting import until
from workers.isolation import Isolation

RUNNING = threading.Event()


def entering(isolation: Isolation, *, alone: bool) -> Callable[[], bool]:
    """Somebody who enters in a thread; gives whether they are in."""
    entered = threading.Event()

    def enter() -> None:
        isolation.enter(RUNNING, alone=alone)
        entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered.is_set


def waiting(isolation: Isolation) -> int:
    return len(isolation._turns)


def test_batches_are_in_flight_side_by_side() -> None:
    isolation = Isolation()
    isolation.enter(RUNNING)
    isolation.enter(RUNNING)


def test_one_alone_waits_for_all_others_and_they_for_it() -> None:
    isolation = Isolation()
    isolation.enter(RUNNING)
    alone = entering(isolation, alone=True)
    until(lambda: waiting(isolation) == 1)
    late = entering(isolation, alone=False)
    until(lambda: waiting(isolation) == 2)
    assert not alone()
    isolation.leave()
    until(alone)
    assert not late()
    isolation.leave()
    until(late)


def test_nobody_alone_is_let_in_twice_before_who_waited_meanwhile() -> None:
    isolation = Isolation()
    isolation.enter(RUNNING, alone=True)
    beside = entering(isolation, alone=False)
    until(lambda: waiting(isolation) == 1)
    again = entering(isolation, alone=True)
    until(lambda: waiting(isolation) == 2)
    isolation.leave()
    until(beside)
    assert not again()
    isolation.leave()
    until(again)


def test_a_stop_ends_the_waiting_and_holds_nobody_up() -> None:
    isolation, stop = Isolation(), threading.Event()
    stop.set()
    isolation.enter(stop)
    with pytest.raises(Stopped):
        isolation.enter(stop, alone=True)
    isolation.enter(stop)
