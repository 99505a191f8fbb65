from __future__ import annotations

import threading

import pytest

from runtime.errors import Fatal, OutOfSpace, Retryable
from runtime.retries import Stopped, persist


def test_a_step_is_repeated_while_the_fault_passes() -> None:
    faults: list[Exception] = [Retryable("away"), OutOfSpace("full")]

    def step() -> None:
        if faults:
            raise faults.pop()

    persist(step, name="put", stop=threading.Event(), wait_max_s=0.01)
    assert not faults


def test_a_stop_ends_the_waiting_at_once() -> None:
    stop, calls = threading.Event(), []

    def step() -> None:
        calls.append(1)
        stop.set()
        raise Retryable("away")

    with pytest.raises(Stopped):
        persist(step, name="put", stop=stop, wait_max_s=3600)
    assert len(calls) == 1


def test_a_step_that_succeeds_while_stopping_has_succeeded() -> None:
    stop = threading.Event()
    stop.set()
    persist(lambda: None, name="put", stop=stop, wait_max_s=1)


def test_any_other_error_comes_through_at_once() -> None:
    def step() -> None:
        raise Fatal("of another version")

    with pytest.raises(Fatal, match="another version"):
        persist(step, name="commit", stop=threading.Event(), wait_max_s=1)
