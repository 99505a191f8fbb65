"""Ships what an edge has spooled to the log of the region: in order, at least once, for as long as it takes.

The spool is the edge's own local log; the forwarder is its consumer. A message's place in the spool is freed when the
log has answered for it and for everything before it, never earlier. While the log is away the spool grows, and the disk
rule alone decides how far; nothing is dropped and nothing gives up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Final

from broker.log import Consumer, Position, Publisher, Taken
from runtime import metrics
from runtime.errors import Fatal, Rejected, Retryable
from runtime.faults import reach
from runtime.lifecycle import Deadline
from runtime.logs import get_logger
from runtime.retries import Stopped, persist
from schemas.message import Lane

_REFUSED: Final = (
    "the log refuses messages as large as this edge spooled them: raise its topics' limits with sansfilm topics apply; "
    "what is spooled stays"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardLimits:
    """Bounds of what is under way at one time, and of waits."""

    max_messages: int
    max_bytes: int
    #: Longest wait for something to ship, and thereby until a stop is noticed.
    idle_wait_s: float
    #: Longest wait for the log's answer before a message is shipped again.
    ack_timeout_s: float
    retry_wait_max_s: float


@dataclass(slots=True, kw_only=True)
class Forwarder:
    """Ships one lane; used by one thread. `spool` and `log` are closed by whoever opened them."""

    lane: Lane
    spool: Consumer
    log: Publisher
    #: Makes the object that a claim check names durable in the archive; idempotent. Raises Retryable.
    ship_claim: Callable[[Taken], None]
    #: Forgets the edge's own copy of it, once nothing refers to it here.
    drop_claim: Callable[[Taken], None]
    limits: ForwardLimits
    #: What the log has answered for since the spool was last committed, by message id.
    _delivered: set[str] = field(default_factory=set, init=False)

    def run(self, stop: threading.Event, drain_timeout_s: float) -> int:
        """Ship until `stop` is set, then for `drain_timeout_s` more what is still there; gives what is left.

        Raises:
            Fatal: the log refuses this edge; what is spooled stays.
        """
        while not stop.is_set():
            try:
                self.ship(stop, self.limits.idle_wait_s)
            except Stopped:
                break
        return self.drain(Deadline(drain_timeout_s))

    def drain(self, deadline: Deadline) -> int:
        """Ship what is there; gives how many messages are left when the log cannot take them, or at the deadline."""
        no_patience = threading.Event()
        no_patience.set()
        try:
            while not deadline.passed and self.ship(no_patience, 0.0):
                continue
        except Stopped:
            get_logger().warning("spool_not_drained", lane=self.lane)
        return sum(self.spool.lag().values())

    def ship(self, stop: threading.Event, wait_s: float) -> int:
        """Ship the next messages and free their places; gives how many there were.

        Raises:
            Stopped: the log is away and `stop` was set; they stay in the spool.
        """
        taken = self.spool.take(max_messages=self.limits.max_messages, max_bytes=self.limits.max_bytes, wait_s=wait_s)
        self._observe()
        if not taken:
            return 0
        try:
            persist(lambda: self._deliver(taken), name="forward", stop=stop, wait_max_s=self.limits.retry_wait_max_s)
            reach("forwarder.delivered")
            persist(lambda: self._free(taken), name="free", stop=stop, wait_max_s=self.limits.retry_wait_max_s)
        except Stopped:
            self.spool.rewind()  # a later commit would free them too
            raise
        return len(taken)

    def _deliver(self, taken: Sequence[Taken]) -> None:
        """Publish what was not answered for yet, from the first such message on: so a study's order is kept."""
        waiting = [one for one in taken if one.message.attributes.id not in self._delivered]
        published = [(one, self._publish(one)) for one in waiting]
        reach("forwarder.published")
        failed: Retryable | None = None
        for one, future in published:
            try:
                future.result(self.limits.ack_timeout_s)
            except FutureTimeout:
                failed = failed or Retryable("the log did not answer in time")
            except Retryable as error:
                failed = failed or error
            except Rejected:
                raise Fatal(_REFUSED) from None
            if failed is None:
                self._delivered.add(one.message.attributes.id)
        if failed is not None:
            raise failed
        metrics.FORWARDED.labels(self.lane).inc(len(waiting))

    def _publish(self, one: Taken) -> Future[Position]:
        if one.message.attributes.data_ref:
            self.ship_claim(one)
            reach("forwarder.claim_shipped")
        return self.log.publish(one.message)

    def _free(self, taken: Sequence[Taken]) -> None:
        self.spool.commit(one.position for one in taken)
        reach("forwarder.freed")
        self._delivered.clear()
        for one in taken:
            if one.message.attributes.data_ref:
                self.drop_claim(one)

    def _observe(self) -> None:
        metrics.SPOOL_MESSAGES.labels(self.lane).set(sum(self.spool.lag().values()))
