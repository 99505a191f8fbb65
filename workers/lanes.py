"""The loop of one lane: prepares a batch while the one before it is put and committed.

One thread per lane, so that a bulk batch that is still gathering never holds up an urgent one; one committer thread for
all of them, because the catalog has one writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from broker.log import Taken
from runtime import metrics
from runtime.logs import get_logger
from runtime.retries import Stopped, persist
from schemas.message import Lane
from workers.attempts import AttemptBook
from workers.batches import Batches
from workers.committing import Committer
from workers.pipeline import Batch, Pipeline


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
    #: Makes the batch that quarantines a message which killed its worker.
    prepare_killer: Callable[[Taken], Batch]
    #: Called after the positions are committed: claim checks that nothing refers to are removed.
    release: Callable[[Batch], None]
    retry_wait_max_s: float
    _pending: tuple[Future[None], Batch] | None = field(default=None, init=False)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set and the batch in flight is committed.

        Raises:
            Fatal, or any error of our own: nothing is lost, the log gives the uncommitted messages again.
        """
        try:
            while not stop.is_set():
                self._turn(stop)
            self._settle()
        except Stopped:
            get_logger().warning("batch_left_in_log", lane=self.lane)
        else:
            get_logger().info("lane_drained", lane=self.lane)
        self.book.done()

    def _turn(self, stop: threading.Event) -> None:
        taken = self.batches.next(stop)
        self._observe_lag()
        if not taken:
            self._settle()
        elif self._must_isolate(taken):
            self._one_by_one(taken, stop)
        else:
            with metrics.BATCH_SECONDS.labels("prepare").time():
                batch = self.pipeline.prepare(taken)
            self._settle()
            self._pending = self._submit(batch, stop), batch

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
        self.book.done()

    def _one_by_one(self, taken: Sequence[Taken], stop: threading.Event) -> None:
        """Isolate a killer: each message alone, its attempt durable before it is touched."""
        get_logger().warning("isolation_started", lane=self.lane, messages=len(taken))
        for one in taken:
            if stop.is_set():
                raise Stopped
            stream, message_id = self.stream_of(one), one.message.attributes.id
            if self.book.is_killer(stream, message_id):
                batch = self.prepare_killer(one)
            else:
                self.book.attempt(stream, message_id)
                batch = self.pipeline.prepare([one])
            self._submit(batch, stop).result()
            self._finish(batch)
        self.book.done()

    def _submit(self, batch: Batch, stop: threading.Event) -> Future[None]:
        return self.committer.submit(lambda: self._conclude(batch, stop))

    def _conclude(self, batch: Batch, stop: threading.Event) -> None:
        self._persist("put", lambda: self.pipeline.put(batch), stop)
        self._persist("commit", lambda: self.pipeline.commit(batch), stop)

    def _finish(self, batch: Batch) -> None:
        """What follows a commit, in this order: a claim check goes only when the log will not give it again."""
        self.pipeline.commit_positions(batch)
        self.release(batch)
        self._report(batch)

    def _persist(self, name: str, step: Callable[[], None], stop: threading.Event) -> None:
        with metrics.BATCH_SECONDS.labels(name).time():
            persist(step, name=name, stop=stop, wait_max_s=self.retry_wait_max_s)

    def _observe_lag(self) -> None:
        for lane, messages in self.pipeline.consumer.lag().items():
            metrics.LOG_LAG_MESSAGES.labels(lane).set(messages)

    def _report(self, batch: Batch) -> None:
        for verdict, messages in batch.verdicts.items():
            metrics.VERDICTS.labels(verdict).inc(messages)
        get_logger().info("batch_committed", lane=self.lane, messages=len(batch.taken), **batch.verdicts)
