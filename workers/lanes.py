"""The loop of one lane: prepares a batch while the one before it is put and committed.

One thread per lane, so that a bulk batch that is still gathering never holds up an urgent one; one committer thread for
all of them, because the catalog has one writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from broker.log import Taken
from runtime import metrics
from runtime.errors import Retryable, SansfilmError
from runtime.logs import get_logger
from runtime.retries import Stopped, persist
from schemas.message import Lane
from workers.attempts import AttemptBook
from workers.batches import Batches
from workers.committing import Committer
from workers.isolation import Isolation
from workers.pipeline import Batch, Pipeline

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class LaneLoop:
    """Everything one lane's thread owns."""

    lane: Lane
    pipeline: Pipeline
    batches: Batches
    book: AttemptBook
    #: What a message's attempts are counted by: the lane, or the partition where partitions change hands.
    stream_of: Callable[[Taken], str]
    committer: Committer
    #: The process's: what other lanes have in flight, and who is to be alone.
    isolation: Isolation
    #: Makes the batch that quarantines a message which killed its worker.
    prepare_killer: Callable[[Taken], Batch]
    #: Called after the positions are committed: claim checks that nothing refers to are removed.
    release: Callable[[Batch], None]
    retry_wait_max_s: float
    _pending: tuple[Future[None], Batch] | None = field(default=None, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set and the batch in flight is committed.

        Raises:
            Fatal, or any error of our own: nothing is lost, the log gives the uncommitted messages again. An error that
                nobody thought of counts as a death of what was in flight, as a kill does; one of the product's tree or
                of the system is not of a message's doing.
        """
        self._stop = stop
        self.pipeline.consumer.on_revoke(self._give_up)
        try:
            while not stop.is_set():
                self._turn()
            self._settle()
        except Stopped:
            get_logger().warning("batch_left_in_log", lane=self.lane)
        except (SansfilmError, OSError):
            self._forget_attempts()
            raise
        else:
            get_logger().info("lane_drained", lane=self.lane)
        self._forget_attempts()

    def _turn(self) -> None:
        taken = self._persist("take", lambda: self.batches.next(self._stop))
        self._observe_lag()
        if not taken:
            self._settle()
        elif self._persist("begin", lambda: self._must_isolate(taken)):
            self._settle()
            self._one_by_one(taken)
        else:
            self._side_by_side(taken)

    def _side_by_side(self, taken: Sequence[Taken]) -> None:
        """Prepare a batch while the one before it is committed, both beside those of the other lanes."""
        self.isolation.enter(self._stop)
        try:
            batch = self._prepare(taken)
            self._settle()
            concluded = self._submit(batch)
        except BaseException:
            self.isolation.leave()
            raise
        concluded.add_done_callback(lambda _: self.isolation.leave())
        self._pending = concluded, batch

    def _must_isolate(self, taken: Sequence[Taken]) -> bool:
        """Note where each stream of the batch begins; whether one of them was left uncleanly there before."""
        firsts = {self.stream_of(one): one.message.attributes.id for one in reversed(taken)}
        isolated = [self.book.begin(stream, first_id) for stream, first_id in firsts.items()]
        return any(isolated)

    def _settle(self) -> None:
        """Wait for the batch in flight, then commit its positions."""
        if self._pending is None:
            return
        concluded, batch = self._pending
        self._pending = None
        concluded.result()
        self._finish(batch)

    def _give_up(self, streams: Collection[str]) -> None:
        """These streams go to another worker: finish what is in flight, and forget the rest of them.

        Called by the consumer while it is asked for more, so nothing else of this lane is being prepared.
        """
        self._settle()
        self.batches.drop(streams)
        self.book.forget(streams)

    def _one_by_one(self, taken: Sequence[Taken]) -> None:
        """Isolate a killer: each message alone, its attempt durable before it is touched."""
        get_logger().warning("isolation_started", lane=self.lane, messages=len(taken))
        for one in taken:
            if self._stop.is_set():
                raise Stopped
            self.isolation.enter(self._stop, alone=True)
            try:
                self._alone(one)
            finally:
                self.isolation.leave()
        self._persist("done", lambda: self.book.done(self._streams(taken)))

    def _alone(self, one: Taken) -> None:
        stream, message_id = self.stream_of(one), one.message.attributes.id
        if self.book.is_killer(stream, message_id):
            batch = self._persist("prepare", lambda: self.prepare_killer(one))
        else:
            self._persist("attempt", lambda: self.book.attempt(stream, message_id))
            batch = self._prepare([one])
        self._submit(batch).result()
        self._commit_positions(batch)

    def _prepare(self, taken: Sequence[Taken]) -> Batch:
        return self._measured("prepare", lambda: self.pipeline.prepare(taken))

    def _submit(self, batch: Batch) -> Future[None]:
        return self.committer.submit(lambda: self._conclude(batch))

    def _conclude(self, batch: Batch) -> None:
        self._measured("put", lambda: self.pipeline.put(batch))
        self._measured("commit", lambda: self.pipeline.commit(batch))

    def _finish(self, batch: Batch) -> None:
        """What follows a commit: the attempts of these streams are forgotten when the log will not give it again."""
        self._commit_positions(batch)
        self._persist("done", lambda: self.book.done(self._streams(batch.taken)))

    def _commit_positions(self, batch: Batch) -> None:
        """In this order: a claim check goes only when the log will not give its message again."""
        self._measured("positions", lambda: self.pipeline.commit_positions(batch))
        self._persist("release", lambda: self.release(batch))
        self._report(batch)

    def _streams(self, taken: Sequence[Taken]) -> set[str]:
        return {self.stream_of(one) for one in taken}

    def _forget_attempts(self) -> None:
        """Nobody died of anything here."""
        try:
            self.book.done()
        except Retryable as error:  # the next start counts a resumption too many
            get_logger().warning("attempts_not_forgotten", lane=self.lane, error=str(error))

    def _measured(self, name: str, step: Callable[[], T]) -> T:
        with metrics.BATCH_SECONDS.labels(name).time():
            return self._persist(name, step)

    def _persist(self, name: str, step: Callable[[], T]) -> T:
        return persist(step, name=name, stop=self._stop, wait_max_s=self.retry_wait_max_s)

    def _observe_lag(self) -> None:
        for lane, messages in self.pipeline.consumer.lag().items():
            metrics.LOG_LAG_MESSAGES.labels(lane).set(messages)

    def _report(self, batch: Batch) -> None:
        for verdict, messages in batch.verdicts.items():
            metrics.VERDICTS.labels(verdict).inc(messages)
        get_logger().info("batch_committed", lane=self.lane, messages=len(batch.taken), **batch.verdicts)
