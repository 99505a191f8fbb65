"""Gathers messages of one lane into batches bounded by count, bytes and time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from broker.log import Consumer, Taken
from runtime.clock import Clock

_IDLE_WAIT_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of a batch. At least one message is given however large it is."""

    max_messages: int
    max_bytes: int
    #: From the batch's first message to its closing.
    wait_s: float


class Batches:
    """An iterator's worth of batches over a consumer; owns what was taken and not yet given.

    That is no more than one batch and one message: what does not fit begins the next one.
    """

    def __init__(self, consumer: Consumer, limits: BatchLimits, clock: Clock) -> None:
        self._consumer = consumer
        self._limits = limits
        self._clock = clock
        self._waiting: deque[Taken] = deque()

    def next(self, stop: threading.Event) -> Sequence[Taken]:
        """The next batch; empty once `stop` is set, or when nothing came for a quarter of a second."""
        if stop.is_set():
            return ()
        if not self._waiting:
            self._fill(_IDLE_WAIT_S)
        deadline_s = self._clock.monotonic_s() + self._limits.wait_s
        while self._waiting and not self._is_full() and not stop.is_set():
            remaining_s = deadline_s - self._clock.monotonic_s()
            if remaining_s <= 0:
                break
            self._fill(remaining_s)
        return cut(self._waiting, self._limits)

    def drop(self, streams: Collection[str]) -> None:
        """Forget what was taken of these streams and not given: whoever has them now takes it again."""
        kept = [taken for taken in self._waiting if taken.position.stream not in streams]
        self._waiting.clear()
        self._waiting.extend(kept)

    def _fill(self, wait_s: float) -> None:
        limits = self._limits
        taken = self._consumer.take(
            max_messages=limits.max_messages - len(self._waiting),
            max_bytes=max(1, limits.max_bytes - self._waiting_bytes()),
            wait_s=wait_s,
        )
        self._waiting.extend(taken)

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._limits.max_messages or self._waiting_bytes() >= self._limits.max_bytes

    def _waiting_bytes(self) -> int:
        return sum(map(weight_bytes, self._waiting))


def cut(waiting: deque[Taken], limits: BatchLimits) -> Sequence[Taken]:
    """Take from `waiting` as many messages as a batch holds."""
    batch: list[Taken] = []
    total_bytes = 0
    while waiting and len(batch) < limits.max_messages:
        total_bytes += weight_bytes(waiting[0])
        if batch and total_bytes > limits.max_bytes:
            break
        batch.append(waiting.popleft())
    return batch


def weight_bytes(taken: Taken) -> int:
    """What a message adds to a batch: its instance's size, wherever the bytes are."""
    return max(taken.message.attributes.size_bytes, len(taken.message.value))
