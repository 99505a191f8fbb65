"""The parts of one STOW-RS request on their way to the log, and what became of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from broker.log import Position
from ingest.arrival import Announced, Arrival, InstanceBuffer, Sender
from ingest.dimse.acceptance import is_accepted_transfer_syntax
from ingest.intake import Intake, count_rejection
from ingest.multipart import BadRequest
from ingest.stow_answer import StowOutcome
from instances.head import HEAD_BYTES
from instances.part10 import split
from runtime.errors import Rejected
from runtime.logs import get_logger
from runtime.metrics import ACKNOWLEDGE_SECONDS
from schemas.reasons import RejectReason

#: Instances of one request that may be in memory at one time: one being received, the others waiting for the log.
BUFFERS_PER_REQUEST: Final = 4


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An instance that the log has and did not confirm yet; its outcome has its place in the list already."""

    place: int
    arrival: Arrival
    published: Future[Position]
    buffer: InstanceBuffer
    #: When its last byte had come.
    complete_s: float


class StowParts:
    """A `PartSink`: one request's parts, one after the other. Used by one thread at a time."""

    def __init__(self, intake: Intake, request_id: str, study_uid: str) -> None:
        """`study_uid` is that of the resource posted to; empty if it is the studies resource."""
        self._intake = intake
        self._sender = Sender(route="stow", association_id=request_id)
        self._study_uid = study_uid
        self._outcomes: list[StowOutcome] = []
        self._waiting: deque[_Waiting] = deque()
        self._free: list[InstanceBuffer] = []
        self._prefix = bytearray()
        self._buffer: InstanceBuffer | None = None
        self._arrival: Arrival | None = None
        self._refused: Rejected | None = None
        self._log = get_logger().bind(association_id=request_id)

    def begin_part(self) -> None:
        # A new one: a refused prefix may still be viewed by its error's traceback.
        self._prefix = bytearray()
        self._arrival = self._refused = None

    def take(self, data: memoryview) -> None:
        if self._arrival is not None:
            self._receive(self._arrival, data)
        elif self._refused is None:
            # Enough for the file meta information and for the head of the data set behind it.
            self._prefix += data
            if len(self._prefix) >= HEAD_BYTES:
                self._open()

    def end_part(self) -> None:
        if self._arrival is None and self._refused is None:
            self._open()
        if self._refused is not None:
            self._refuse(self._refused, "", "")
            return
        arrival, buffer = self._arrival, self._buffer
        assert arrival is not None and buffer is not None  # opened, and not refused
        self._arrival = self._buffer = None
        complete_s = self._intake.monotonic_s()
        try:
            published = arrival.publish()
        except Rejected as rejected:
            self._free.append(buffer)
            head, said = arrival.head, arrival.announced
            self._refuse(
                rejected,
                head.sop_class_uid if head else said.sop_class_uid,
                head.sop_instance_uid if head else said.sop_instance_uid,
            )
            return
        self._waiting.append(_Waiting(len(self._outcomes), arrival, published, buffer, complete_s))
        self._outcomes.append(_stored(arrival))

    def settled(self) -> Sequence[StowOutcome]:
        """Wait for the log; what became of each part, in order."""
        while self._waiting:
            self._settle_oldest()
        return self._outcomes

    def abandon(self) -> None:
        """Leave nothing of a part that did not end. Harmless when all did."""
        if self._arrival is not None:
            self._arrival.abort()
            self._arrival = None

    def _open(self) -> None:
        """The beginning of the part is here: know what it is, and go on as an arrival."""
        try:
            meta, dataset = split(self._prefix)
            if not is_accepted_transfer_syntax(meta.transfer_syntax):
                raise Rejected(RejectReason.TRANSFER_SYNTAX_REFUSED, "this transfer syntax is not kept")
        except Rejected as rejected:
            self._refused = rejected
            return
        announced = Announced(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax=meta.transfer_syntax,
            study_instance_uid=self._study_uid,
        )
        if self._buffer is None:
            self._buffer = self._next_buffer()
        self._arrival = self._intake.begin(self._sender, announced, self._buffer)
        with dataset:
            self._receive(self._arrival, dataset)

    def _receive(self, arrival: Arrival, data: memoryview) -> None:
        try:
            arrival.take(data)
        except Rejected as rejected:
            count_rejection(rejected)
            raise BadRequest(rejected.reason.http_status, "an instance is larger than this server takes") from rejected

    def _next_buffer(self) -> InstanceBuffer:
        if not self._free and len(self._waiting) >= BUFFERS_PER_REQUEST - 1:
            self._settle_oldest()
        return self._free.pop() if self._free else self._intake.buffer()

    def _settle_oldest(self) -> None:
        waiting = self._waiting.popleft()
        try:
            self._intake.acknowledged(waiting.published, waiting.arrival)
        except Rejected as rejected:
            # The log may still be reading the buffer: it is the log's from now on.
            self._count(rejected)
            self._outcomes[waiting.place] = replace(self._outcomes[waiting.place], refused=rejected.reason)
            return
        ACKNOWLEDGE_SECONDS.observe(self._intake.monotonic_s() - waiting.complete_s)
        self._free.append(waiting.buffer)

    def _refuse(self, rejected: Rejected, sop_class_uid: str, sop_instance_uid: str) -> None:
        self._count(rejected)
        self._outcomes.append(
            StowOutcome(
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                study_instance_uid="",
                refused=rejected.reason,
            )
        )

    def _count(self, rejected: Rejected) -> None:
        count_rejection(rejected)
        self._log.warning("instance_rejected", reason=rejected.reason.value, detail=rejected.detail)


def _stored(arrival: Arrival) -> StowOutcome:
    head, said = arrival.head, arrival.announced
    assert head is not None  # published, so read
    return StowOutcome(
        sop_class_uid=head.sop_class_uid or said.sop_class_uid,
        sop_instance_uid=head.sop_instance_uid,
        study_instance_uid=head.study_instance_uid,
    )
