"""The seam between receivers and workers: an append-only log with at-least-once delivery.

Publishing and taking are separate because they happen in separate processes: an edge holds a `Publisher`, a worker a
`Consumer`. Both are implemented on local files (`broker.local`) and, later, on Kafka; one contract test runs on each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from schemas.message import Lane, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a message is. `stream` is a file of the local log, or a topic's partition; `next_offset` is the offset to
    read after it (Kafka's convention for committed offsets)."""

    stream: str
    offset: int
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One message with its position."""

    message: Message
    position: Position


class Publisher(Protocol):
    """The writing end. Thread-safe: every association of a process shares one."""

    def publish(self, message: Message) -> Future[Position]:
        """Append `message`; the future resolves when it is durable (synced, or acknowledged by all replicas).

        The value may be reused once the future is done. Blocks while the bounded queue is full.

        The future raises:
            OutOfSpace: nothing was kept; answer 0xA700.
            Retryable: the log is unavailable; answer 0xA700. The message may still turn up: that is harmless.
        """

    def close(self) -> None:
        """Sync and close; later calls of `publish` raise Retryable."""


class Consumer(Protocol):
    """The reading end. One thread at a time."""

    def take(self, *, max_messages: int, max_bytes: int, wait_s: float) -> Sequence[Taken]:
        """Messages of one lane in order of their stream, after the last ones taken; empty when none came in `wait_s`.

        Returns as soon as something is there and either a bound is reached or nothing more is waiting: a full log is
        read at full speed, a quiet one answers at once. At least one message is returned however large it is.
        """

    def commit(self, positions: Iterable[Position]) -> None:
        """Mark these messages, and all before them in their streams, as done; durable on return."""

    def rewind(self) -> None:
        """Forget what was taken and not committed: the next `take` gives it again."""

    def on_revoke(self, finish: Callable[[Collection[str]], None]) -> None:
        """Call `finish` with the streams that are about to be given to another consumer, or were lost to one.

        It is called on the thread that takes, from inside `take` or `close`; what it raises is raised there. When it
        returns, its owner has committed or forgotten everything it took of them. Positions of streams that were lost
        are no longer committed: they are given to another consumer, and what is done twice changes nothing. A log whose
        streams never change hands never calls it.
        """

    def lag(self) -> Mapping[Lane, int]:
        """Messages not committed yet, by lane."""

    def uncommitted_bytes(self) -> int:
        """Bytes of the log that are not committed yet."""

    def close(self) -> None:
        """Release files; takes nothing back."""
