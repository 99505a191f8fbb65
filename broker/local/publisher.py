"""The writing end of the local log."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

from broker.local.lane_writer import LaneWriter, Waiting
from broker.local.layout import is_name, lane_folder
from broker.log import Position
from runtime.errors import Misconfigured, Retryable
from runtime.settings import MIB
from schemas.message import Lane, Message
from segments.disk import Disk, SystemDisk


class LocalPublisher:
    """A `broker.log.Publisher` on files of this machine; one a process, shared by its threads.

    `writer` names this start of this process (``edge-0-<uuid7>``), so that its files are its own. A lane's file and
    thread are made when its first message comes. Values are referenced until their future is done, never copied.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        writer: str,
        file_max_bytes: int = 256 * MIB,
        queue_max_bytes: int = 64 * MIB,
        queue_timeout_s: float = 25.0,
        senders_write: bool = False,
        disk: Disk | None = None,
    ) -> None:
        """Creates nothing yet. `queue_max_bytes` is a bound for each lane, and `queue_timeout_s` of the wait for room.

        With `senders_write`, `publish` writes and syncs a message itself if nobody else is writing, and gives a future
        that is done: for callers who wait for each message anyway, and who bound how long the disk may take.
        """
        if not is_name(writer):
            raise Misconfigured(f"the log's writer cannot be called {writer!r}: use letters, digits, _ and -")
        self._log_dir = log_dir
        self._writer = writer
        self._file_max_bytes = file_max_bytes
        self._queue_max_bytes = queue_max_bytes
        self._queue_timeout_s = queue_timeout_s
        self._senders_write = senders_write
        self._disk = disk or SystemDisk()
        self._lanes: dict[Lane, LaneWriter] = {}
        self._lock = threading.Lock()
        self._closed = False

    def publish(self, message: Message) -> Future[Position]:
        """See `broker.log.Publisher.publish`.

        Raises:
            Retryable: the publisher is closed, or its queue was full for `queue_timeout_s`.
        """
        waiting = Waiting.of(message)
        self._lane(message.attributes.lane).put(waiting)
        return waiting.future

    def close(self) -> None:
        """Write what is queued, sync, seal and close every lane. May be called again."""
        with self._lock:
            self._closed = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.close()

    def _lane(self, lane: Lane) -> LaneWriter:
        writer = self._lanes.get(lane)
        if writer is not None:
            return writer
        with self._lock:
            if self._closed:
                raise Retryable("the log is closed")
            if lane not in self._lanes:
                self._lanes[lane] = LaneWriter(
                    lane=lane,
                    folder=lane_folder(self._log_dir, lane),
                    writer=self._writer,
                    disk=self._disk,
                    file_max_bytes=self._file_max_bytes,
                    queue_max_bytes=self._queue_max_bytes,
                    queue_timeout_s=self._queue_timeout_s,
                    senders_write=self._senders_write,
                )
            return self._lanes[lane]
