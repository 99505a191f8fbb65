"""The seam between receivers and workers: an append-only log with at-least-once delivery.

Publishing and taking are separate because they happen in separate processes: an edge holds a `Publisher`, a worker a
`Consumer`. Both are implemented on local files (`broker.local`) and on Apache Kafka (`broker.kafka`); one contract test
runs on each.
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
            Rejected: the message is larger than the log takes.
        """

    def close(self) -> None:
        """Sync and close; later calls of `publish` raise Retryable."""


class Consumer(Protocol):
    """The reading end. One thread at a time."""

    def take(self, *, max_messages: int, max_bytes: int, wait_s: float) -> Sequence[Taken]:
        """Messages of one lane in order of their stream, after the last ones taken; empty when none came in `wait_s`.

        Returns as soon as something is there and either a bound is reached or nothing more is waiting: a full log is
        read at full speed, a quiet one answers at once. At least one message is returned however large it is.

        Raises:
            Retryable: nothing is lost; take again.
            Fatal: what is next cannot be found or read; the message says what to do.
        """

    def commit(self, positions: Iterable[Position]) -> None:
        """Mark these messages, and all before them in their streams, as done; durable on return.

        Positions of streams that are gone, or no longer this consumer's, are ignored.

        Raises:
            Retryable: perhaps not durable; commit again.
        """

    def on_revoke(self, finish: Callable[[Collection[str]], None]) -> None:
        """Have `finish` called with the streams that are about to be taken away; called before the first `take`.

        A log that shares its streams among several consumers gives some of them to another one when consumers come and
        go. `finish` is called on the taking thread, inside `take`, `commit` or `close`. It must leave nothing of these
        streams in hand: put and commit what is under way and call `commit` with its positions, or drop it. It must not
        call `take` or `rewind`. Once it returns, the streams are another consumer's, and what was not committed is
        given there again; `commit` ignores their positions from then on.

        Streams that are lost already (this consumer did not answer in time) are told in the same way, and in them
        `commit` is ignored at once: what was under way may be finished, and will be given elsewhere too.

        A `finish` that raises ends the call it was made in with that exception; the streams are given away all the
        same. Other streams, and messages of them that were taken, are not touched. The local log never calls it.
        """

    def rewind(self) -> None:
        """Forget what was taken and not committed: the next `take` gives it again."""

    def lag(self) -> Mapping[Lane, int]:
        """Messages not committed yet, by lane."""

    def uncommitted_bytes(self) -> int:
        """Bytes of the log that are not committed yet; may be an estimate."""

    def close(self) -> None:
        """Release files; takes nothing back."""
