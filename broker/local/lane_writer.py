"""The writer of one lane: a bounded queue, and a thread that commits whatever waits in it as one group.

A sender that finds nobody writing may commit its own message: two switches of threads less for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.local.file_writer import FileWriter
from broker.local.layout import FileName, stream_of
from broker.log import Position
from runtime.errors import Retryable
from runtime.faults import reach
from runtime.logs import get_logger
from runtime.metrics import LOG_SYNCS
from schemas.message import DECISION_MADE, Lane, Message
from segments.checksum import crc32c_hex
from segments.disk import Disk
from segments.tar import CRC32C
from segments.writer import EncodedMember, MemberSpan, encode_member

#: Members end where blocks of the file system and sectors of the disk do: an append never touches one that holds
#: acknowledged bytes.
_MULTIPLE_OF: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message in the queue, everything prepared that needs no file."""

    name: str
    provenance: dict[str, str]
    value: bytes | bytearray | memoryview
    future: Future[Position] = field(default_factory=Future)

    @classmethod
    def of(cls, message: Message) -> Waiting:
        """Prepare a message in the thread of its sender."""
        attributes = message.attributes
        provenance = attributes.to_headers()
        suffix = "json" if attributes.type == DECISION_MADE else "dcm"
        inline = len(message.value) > 0 and len(message.value) == attributes.size_bytes
        provenance[CRC32C] = attributes.crc32c if inline and attributes.crc32c else crc32c_hex([message.value])
        waiting = cls(name=f"{attributes.id}.{suffix}", provenance=provenance, value=message.value)
        # From here on the message will be written; a cancelled future would be a message nobody waits for.
        waiting.future.set_running_or_notify_cancel()
        return waiting


class LaneWriter:
    """Queue, thread and current file of one lane. `put` and `close` are thread-safe."""

    def __init__(
        self,
        *,
        lane: Lane,
        folder: Path,
        writer: str,
        disk: Disk,
        file_max_bytes: int,
        queue_max_bytes: int,
        queue_timeout_s: float,
        senders_write: bool,
    ) -> None:
        self._lane = lane
        self._folder = folder
        self._writer = writer
        self._disk = disk
        self._file_max_bytes = file_max_bytes
        self._queue_max_bytes = queue_max_bytes
        self._queue_timeout_s = queue_timeout_s
        self._senders_write = senders_write
        self._sequence = 0
        self._file: FileWriter | None = None
        self._queue: list[Waiting] = []
        self._queue_bytes = 0
        #: Somebody has the file: a sender, or the thread, which has it until it first waits.
        self._writing = True
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)
        self._thread = threading.Thread(target=self._run, name=f"log-{lane.value}", daemon=True)
        self._thread.start()

    def put(self, waiting: Waiting) -> None:
        """Queue a message, or write it if senders may and nobody else does; blocks while the queue is full.

        Raises:
            Retryable: the log is closed, or there was no room in time: the disk hangs.
        """
        size_bytes = len(waiting.value)
        with self._emptied:
            if not self._emptied.wait_for(lambda: self._has_room(size_bytes), self._queue_timeout_s):
                raise Retryable("the log's queue is full and the disk takes nothing")
            if self._closed:
                raise Retryable("the log is closed")
            if not self._senders_write or self._writing or self._queue:
                self._queue.append(waiting)
                self._queue_bytes += size_bytes
                if not self._writing:
                    self._filled.notify()
                return
            self._writing = True
        self._write_alone(waiting)

    def close(self) -> None:
        """Write what is queued, seal the file and end the thread. May be called again."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._emptied.notify_all()
        self._thread.join()

    def _has_room(self, size_bytes: int) -> bool:
        return self._closed or not self._queue or self._queue_bytes + size_bytes <= self._queue_max_bytes

    def _run(self) -> None:
        while batch := self._gather():
            self._write(batch)
        if self._file is not None:
            self._file.finish()

    def _gather(self) -> list[Waiting]:
        """Everything that waits, in order; empty when the lane is closed. The thread has the file until its next."""
        with self._filled:
            self._writing = False
            while self._writing or (not self._queue and not self._closed):
                self._filled.wait()
            self._writing = True
            batch, self._queue, self._queue_bytes = self._queue, [], 0
            self._emptied.notify_all()
            return batch

    def _write_alone(self, waiting: Waiting) -> None:
        """In the sender's own thread, which has the file; what came meanwhile is the lane's thread's."""
        self._write([waiting])
        with self._filled:
            self._writing = False
            if self._queue or self._closed:
                self._filled.notify()

    def _write(self, batch: list[Waiting]) -> None:
        """One group commit: append, sync, mark, tell the senders."""
        try:
            self._commit_group(batch)
        except Retryable as error:
            get_logger().error("log_write_failed", lane=self._lane.value, messages=len(batch), error=str(error))
            self._drop_file(FileWriter.drop_tail)
            _fail(batch, type(error), str(error))
        except Exception as error:  # noqa: BLE001 - a bug, or no memory: these messages fail, the next have another file
            get_logger().error(
                "log_write_failed", lane=self._lane.value, messages=len(batch), error=type(error).__name__
            )
            self._drop_file(FileWriter.close)
            _fail(batch, Retryable, "the log could not write")
        if self._file is not None and self._file.size_bytes >= self._file_max_bytes:
            self._drop_file(FileWriter.finish)

    def _commit_group(self, batch: list[Waiting]) -> None:
        file = self._file = self._file or self._open()
        framed = list(self._framed(batch, file.name))
        spans = file.append([member for _, member in framed])
        reach("log.appended")
        file.sync()
        LOG_SYNCS.inc()
        reach("log.synced")
        try:
            file.publish_mark(len(framed))
        except Retryable:
            self._drop_file(FileWriter.close)
        reach("log.marked")
        stream = stream_of(self._lane, FileName(writer=self._writer, sequence=self._sequence))
        for (waiting, _), span in zip(framed, spans, strict=True):
            waiting.future.set_result(_position(stream, span))

    def _framed(self, batch: list[Waiting], segment: str) -> Sequence[tuple[Waiting, EncodedMember]]:
        framed = []
        for waiting in batch:
            try:
                member = encode_member(
                    segment=segment,
                    name=waiting.name,
                    provenance=waiting.provenance,
                    parts=(waiting.value,),
                    multiple_of=_MULTIPLE_OF,
                )
            except ValueError:  # attributes that no record can hold: this message alone fails
                waiting.future.set_exception(Retryable("the message's attributes cannot be written"))
            else:
                framed.append((waiting, member))
        return framed

    def _open(self) -> FileWriter:
        self._disk.make_folder(self._folder)
        while True:
            self._sequence += 1
            try:
                return FileWriter(self._disk, self._folder, FileName(writer=self._writer, sequence=self._sequence))
            except FileExistsError:
                continue

    def _drop_file(self, how: Callable[[FileWriter], None]) -> None:
        file, self._file = self._file, None
        if file is not None:
            how(file)


def _fail(batch: Sequence[Waiting], kind: type[Retryable], text: str) -> None:
    """Give each sender an exception of its own: a raised one collects the traceback of whoever raises it."""
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(kind(text))


def _position(stream: str, span: MemberSpan) -> Position:
    return Position(stream=stream, offset=span.header_offset, next_offset=span.next_offset)
