"""A run of a command goes through faults that pass, and ends where one lasts, where no room comes, or when told to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.errors import Fatal, OutOfSpace, Retryable
from runtime.retries import Stopped
from tests.waiting import until
from workers.patience import Patience


def test_faults_that_pass_are_gone_through() -> None:
    faults: list[Exception] = [Retryable("away"), OutOfSpace("full")]

    def step() -> str:
        if faults:
            raise faults.pop()
        return "done"

    assert Patience().lasting("judge", step) == "done"


def test_one_that_lasts_ends_it_with_its_reason() -> None:
    def away() -> None:
        raise Retryable("PostgreSQL is away")

    with pytest.raises(Fatal, match="lasted 0 minutes: PostgreSQL is away"):
        Patience(fault_max_s=0.0).lasting("judge", away)


def test_a_full_disk_that_nobody_else_frees_ends_it_at_once() -> None:
    def full() -> None:
        raise OutOfSpace("the catalog's disk is full")

    with pytest.raises(Fatal, match="disk is full: make room"):
        Patience(waits_for_room=False).lasting("put", full)


def test_a_stop_ends_all_threads_of_a_run() -> None:
    patience, began = Patience(), threading.Event()

    def away() -> None:
        began.set()
        raise Retryable("away")

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(patience.lasting, "judge", away) for _ in range(2)]
        until(began.is_set)
        patience.stop.set()
    assert all(isinstance(one.exception(), Stopped) for one in waiting)
