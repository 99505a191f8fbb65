"""An instance on its way in: collected in one reusable buffer, or streamed on when it is larger than that."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from ingest.dimse.acceptance import is_stored_sop_class
from ingest.large import LargeInstance
from instances.head import Head, read_head
from instances.part10 import file_header
from runtime.errors import OutOfSpace, Rejected, Retryable
from schemas.message import Message, MessageAttributes
from schemas.reasons import RejectReason
from segments.checksum import crc32c_hex

if TYPE_CHECKING:
    from broker.log import Position
    from ingest.intake import Intake

#: Room kept before the data set for the Part-10 header, which is 300 to 700 bytes long.
HEADER_ROOM_BYTES: Final = 1024
#: Longer than any UID; what exceeds it is cut where it is only carried along (the data set keeps its own).
_UID_KEPT_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends, and by which route."""

    route: Literal["cstore", "stow"]
    #: The association's id, or the HTTP request's.
    association_id: str
    calling_ae: str = ""
    called_ae: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What is said of an instance before its data set comes: by the command set, or by group 2 of a file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    #: Only for STOW-RS below a study's resource: the study it must belong to (PS3.18 10.5.1).
    study_instance_uid: str = ""


class InstanceBuffer:
    """Memory for one instance at a time: ``inline_max_bytes`` in all, taken from the system as it is first used.

    Reuse it when the publisher's future is done, never before.
    """

    def __init__(self, inline_max_bytes: int) -> None:
        self.memory = memoryview(bytearray(inline_max_bytes))


class Arrival:
    """One instance being received. Not thread-safe.

    The receiver writes into `room()` and reports it with `received()`; after the last byte it calls `publish()`, or
    `abort()` if that never comes. A refusal does not interrupt it: the remaining bytes are taken and forgotten, and
    `publish` raises it. Memory never exceeds the buffer, whatever comes.
    """

    def __init__(self, intake: Intake, sender: Sender, announced: Announced, buffer: InstanceBuffer) -> None:
        self._intake = intake
        self._sender = sender
        self._announced = announced
        self._memory = buffer.memory
        self._end = HEADER_ROOM_BYTES
        self._passed_on_bytes = 0
        self._head: Head | None = None
        self._large: LargeInstance | None = None
        self._refusal: Rejected | None = None
        self._try(intake.admit)

    @property
    def size_bytes(self) -> int:
        """Bytes of the data set so far."""
        return self._passed_on_bytes + self._end - HEADER_ROOM_BYTES

    @property
    def head(self) -> Head | None:
        """The UIDs of the data set, once they were read."""
        return self._head

    @property
    def announced(self) -> Announced:
        return self._announced

    @property
    def sender(self) -> Sender:
        return self._sender

    def room(self) -> memoryview:
        """Where the next bytes of the data set go; never empty.

        Raises:
            Rejected: TOO_LARGE; stop receiving, there is no end in sight.
        """
        if self._end == len(self._memory):
            self._pass_on()
        return self._memory[self._end :]

    def received(self, size_bytes: int) -> None:
        """`size_bytes` were written into `room()`."""
        self._end += size_bytes

    def take(self, data: bytes | bytearray | memoryview) -> None:
        """Copy `data` into the room there is, as often as it takes.

        Raises:
            Rejected: TOO_LARGE; stop receiving.
        """
        view = memoryview(data)
        while view:
            room = self.room()
            size = min(len(room), len(view))
            room[:size] = view[:size]
            self.received(size)
            view = view[size:]

    def publish(self) -> Future[Position]:
        """Check the whole and hand it to the log. The buffer belongs to the log until the future is done.

        Raises:
            Rejected: the instance is refused, and nothing of it remains.
        """
        try:
            self._check_size()
            if self._head is None:
                self._try(self._read_head)
            if self._refusal is not None:
                raise self._refusal
            if self._large is None:
                return self._intake.publish(self._inline_message(), None)
            self._try(self._flush)
            if self._refusal is not None:
                raise self._refusal
            large, self._large = self._large, None
            return self._intake.publish(Message(attributes=large.finish(self._attributes())), large)
        except Rejected:
            self.abort()
            raise

    def abort(self) -> None:
        """The sender went away, or was refused: leave nothing. May be called again."""
        if self._large is not None:
            large, self._large = self._large, None
            large.abort()

    # ---- the way of a large one ------------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        """The buffer is full and more comes: stream it on, or forget it if the instance is refused already."""
        self._check_size()
        if self._head is None:
            self._try(self._read_head)
        self._try(self._intake.admit)  # what came since the last time took room too
        self._try(self._flush)
        self._passed_on_bytes += self._end - HEADER_ROOM_BYTES
        self._end = HEADER_ROOM_BYTES

    def _flush(self) -> None:
        if self._large is None:
            self._large = self._intake.open_large()
            self._large.write(self._header())
        self._large.write(self._memory[HEADER_ROOM_BYTES : self._end])

    def _check_size(self) -> None:
        if self.size_bytes > self._intake.object_max_bytes:
            self.abort()
            raise Rejected(RejectReason.TOO_LARGE, "larger than object_max_bytes")

    def _try(self, step: Callable[[], None]) -> None:
        """Do one step unless the instance is refused; a refusal is kept for `publish`, and what was written goes."""
        if self._refusal is not None:
            return
        try:
            step()
        except Rejected as error:
            self._refusal = error
        except OutOfSpace:
            self._refusal = Rejected(RejectReason.DISK_LOW, "the disk is full")
        except Retryable:
            self._refusal = Rejected(RejectReason.LOG_UNAVAILABLE, "the archive cannot be written")
        if self._refusal is not None:
            self.abort()

    # ---- what the instance is --------------------------------------------------------------------------------------

    def _read_head(self) -> None:
        head = read_head(self._memory[HEADER_ROOM_BYTES : self._end], self._announced.transfer_syntax)
        if self._sender.route == "cstore":
            check_command(self._announced, head)
        elif not is_stored_sop_class(head.sop_class_uid or self._announced.sop_class_uid):
            raise Rejected(RejectReason.SOP_CLASS_REFUSED, "not a storage SOP class")
        study_uid = self._announced.study_instance_uid
        if study_uid and head.study_instance_uid != study_uid:
            raise Rejected(RejectReason.UID_MISMATCH, "Study Instance UID is not that of the resource")
        self._head = head

    def _header(self) -> bytes:
        said, head = self._announced, self._head
        assert head is not None  # read before any byte is passed on
        return file_header(
            sop_class_uid=_carried(said.sop_class_uid or head.sop_class_uid),
            sop_instance_uid=_carried(said.sop_instance_uid or head.sop_instance_uid),
            transfer_syntax=said.transfer_syntax,
            calling_ae=self._sender.calling_ae,
        )

    def _inline_message(self) -> Message:
        header = self._header()
        start = HEADER_ROOM_BYTES - len(header)
        self._memory[start:HEADER_ROOM_BYTES] = header
        file = self._memory[start : self._end]
        attributes = replace(self._attributes(), size_bytes=len(file), crc32c=crc32c_hex([file]))
        return Message(attributes=attributes, value=file)

    def _attributes(self) -> MessageAttributes:
        head = self._head
        assert head is not None
        return self._intake.attributes(
            self._sender,
            study_uid=_carried(head.study_instance_uid),
            sop_class_uid=_carried(head.sop_class_uid or self._announced.sop_class_uid),
            sop_instance_uid=_carried(head.sop_instance_uid),
            transfer_syntax=self._announced.transfer_syntax,
        )


def check_command(announced: Announced, head: Head) -> None:
    """The data set must be the one its command set announced. A data set without SOP Class UID does not disagree.

    Raises:
        Rejected: UID_MISMATCH (PS3.4 Table B.2-1, A9xx).
    """
    if head.sop_instance_uid != announced.sop_instance_uid:
        raise Rejected(RejectReason.UID_MISMATCH, "SOP Instance UID is not the command's")
    if head.sop_class_uid and head.sop_class_uid != announced.sop_class_uid:
        raise Rejected(RejectReason.UID_MISMATCH, "SOP Class UID is not the command's")


def _carried(uid: str) -> str:
    """A UID fit for headers and attributes: bounded, printable ASCII."""
    return "".join(c if " " < c < "\x7f" else "?" for c in uid[:_UID_KEPT_MAX])
