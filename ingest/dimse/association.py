"""One association, from the first byte to the last, on one thread (PS3.8 9.2 as acceptor).

Nothing is decoded but the association PDUs, command sets, and the head of each data set. The bytes of a data set go
from the kernel to where the log takes them. Lengths a peer claims are checked before anything follows from them.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import Final

import structlog

from ingest.admission import Seats
from ingest.arrival import Announced, Arrival, InstanceBuffer, Sender
from ingest.dimse.acceptance import VERIFICATION, PresentationContext, accept
from ingest.dimse.association_pdu import (
    APPLICATION_CONTEXT,
    AbortReason,
    AssociationRequest,
    MalformedPdu,
    PduType,
    Rejection,
    decode_request,
    encode_abort,
    encode_acceptance,
    encode_rejection,
    encode_release_response,
)
from ingest.dimse.command import (
    COMMAND_SIZE_MAX,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Command,
    CommandField,
    MalformedCommand,
    decode_command,
    encode_response,
    encode_response_pdus,
)
from ingest.dimse.wire import READ_AHEAD_BYTES, PeerLost, PeerSilent, Wire
from ingest.intake import Intake, count_rejection
from instances.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from runtime.clock import Clock
from runtime.errors import Rejected
from runtime.faults import reach
from runtime.logs import get_logger
from runtime.metrics import ACKNOWLEDGE_SECONDS, ASSOCIATIONS, ASSOCIATIONS_OPEN
from runtime.settings import EdgeSettings
from schemas.reasons import RejectReason

#: Longest A-ASSOCIATE-RQ taken; 128 contexts with every transfer syntax there is are 150 kB.
REQUEST_SIZE_MAX: Final = 256 * 1024
#: Some senders count the headers of a PDU out of the maximum they were told.
PDU_SLACK_BYTES: Final = 12
_OVERDUE: Final = Rejected(RejectReason.LOG_UNAVAILABLE, "the log did not take it in time")
#: How long a peer may take to read our A-ABORT while this process stops.
_DRAIN_LINGER_S: Final = 0.2


class Violation(Exception):
    """The peer broke PS3.8; the association ends with this A-ABORT."""

    def __init__(self, reason: AbortReason) -> None:
        super().__init__(reason.name.lower())
        self.reason = reason


class Refused(Exception):
    """The association is not accepted."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.name.lower())
        self.rejection = rejection


@dataclass(slots=True)
class _Incoming:
    """A message whose command set is complete and whose data set is not."""

    context: PresentationContext
    command: Command
    #: None: the data set belongs to no instance and is skipped.
    arrival: Arrival | None
    #: The answer if it is decided already.
    status: int | None = None
    skipped_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Awaited:
    """An instance that the log was given, and until when the sender is to have an answer."""

    incoming: _Incoming
    due_s: float


class Association:
    """A connection and the association on it. `run` is called once, on a thread of its own; the rest from anywhere."""

    def __init__(
        self,
        connected: socket.socket,
        address: str,
        *,
        intake: Intake,
        seats: Seats,
        settings: EdgeSettings,
        clock: Clock,
    ) -> None:
        self.address = address
        self._intake = intake
        self._seats = seats
        self._settings = settings
        self._clock = clock
        self._wire = Wire(connected, send_timeout_s=settings.idle_timeout_s)
        self._association_id = clock.new_id()
        self._log: structlog.typing.FilteringBoundLogger = get_logger().bind(association_id=self._association_id)
        self._contexts: dict[int, PresentationContext] = {}
        self._peer_pdu_max_bytes = 0
        self._buffer: InstanceBuffer | None = None
        self._command = bytearray()
        self._command_context = 0
        self._incoming: _Incoming | None = None
        self._awaited: _Awaited | None = None
        self._state = threading.Lock()
        #: Whether `drain` may wake us: no instance is being received.
        self._between_messages = True
        self._draining = threading.Event()
        self._instances_stored = 0

    # ---- from other threads ----------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Finish the instance that is being received, then end the association."""
        with self._state:
            self._draining.set()
            if self._between_messages:
                self._wire.stop_reading()

    def answer_overdue(self) -> None:
        """Refuse an instance that the log has not taken in time, should this association's thread hang in the disk."""
        awaited = self._awaited
        if awaited is None or self._clock.monotonic_s() < awaited.due_s:
            return
        with self._state:  # held until it is said: our thread waits here before its next message
            if self._claims_answer(awaited):
                try:
                    self._refuse(awaited.incoming, _OVERDUE, wait=False)
                except PeerLost:
                    self._wire.cut()

    def evict(self) -> None:
        """End at once, without a word."""
        self._wire.cut()

    def close(self) -> None:
        """Instead of `run`: nobody will serve this connection."""
        self._wire.close()
        self._seats.exit(self)

    # ---- the life of the association -------------------------------------------------------------------------------

    def run(self) -> None:
        """Negotiate, serve, close. Returns when the connection is closed."""
        try:
            request = self._negotiated()
            if request is not None:
                self._associated(request)
        finally:
            self._abandon_incoming()
            self.close()

    def _negotiated(self) -> AssociationRequest | None:
        """The accepted request; None if there will be no association."""
        try:
            request = self._read_request()
            self._accept(request)
        except PeerLost:
            ASSOCIATIONS.labels("never_requested").inc()
            return None
        except Violation as violation:
            self._last_word(encode_abort(violation.reason), "malformed", reason=str(violation))
            return None
        except Refused as refused:
            self._last_word(encode_rejection(refused.rejection), "rejected", reason=str(refused))
            return None
        return request

    def _associated(self, request: AssociationRequest) -> None:
        ASSOCIATIONS.labels("accepted").inc()
        ASSOCIATIONS_OPEN.inc()
        self._log.info("association_accepted", address=self.address, calling_ae=request.calling_ae)
        sender = Sender(
            route="cstore",
            association_id=self._association_id,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
        )
        try:
            reach("edge.associated")
            self._serve(sender)
            self._leave()
            self._last_word(encode_release_response(), "released", instances=self._instances_stored)
        except Violation as violation:
            self._leave()
            self._last_word(encode_abort(violation.reason), "aborted", reason=str(violation))
        except PeerSilent:
            self._leave()
            self._last_word(encode_abort(AbortReason.NOT_SPECIFIED), "timed_out")
        except PeerLost as lost:
            self._leave()
            draining = self._draining.is_set()
            pdu = encode_abort(AbortReason.NOT_SPECIFIED) if draining else None
            self._last_word(pdu, "drained" if draining else "lost", reason=str(lost))
        finally:
            ASSOCIATIONS_OPEN.dec()

    def _leave(self) -> None:
        """The association is over; forget what was half received, and let the next one have the place."""
        self._between_messages = True
        self._abandon_incoming()
        self._buffer = None
        self._seats.dissociate(self)

    def _last_word(self, pdu: bytes | None, outcome: str, **details: object) -> None:
        ASSOCIATIONS.labels(outcome).inc()
        self._log.info(f"association_{outcome}", address=self.address, **details)
        if pdu is None:
            return
        try:
            self._wire.send(pdu)
        except PeerLost:
            return
        self._wire.linger(_DRAIN_LINGER_S if self._draining.is_set() else self._settings.artim_timeout_s)

    def _abandon_incoming(self) -> None:
        if self._incoming is not None and self._incoming.arrival is not None:
            self._incoming.arrival.abort()
        self._incoming = None

    # ---- negotiation (PS3.8 7.1, 9.3.2) ----------------------------------------------------------------------------

    def _read_request(self) -> AssociationRequest:
        deadline = self._clock.monotonic_s() + self._settings.artim_timeout_s
        kind, size = _pdu_header(self._wire.read(6, deadline=deadline))
        if kind != PduType.A_ASSOCIATE_RQ:
            raise Violation(AbortReason.UNEXPECTED_PDU)
        if size > REQUEST_SIZE_MAX:
            raise Violation(AbortReason.INVALID_PARAMETER)
        body = bytearray()
        while len(body) < size:
            body += self._wire.read(min(READ_AHEAD_BYTES, size - len(body)), deadline=deadline)
        try:
            return decode_request(bytes(body))
        except MalformedPdu as malformed:
            raise Violation(AbortReason.INVALID_PARAMETER) from malformed

    def _accept(self, request: AssociationRequest) -> None:
        if not request.protocol_version & 1:
            raise Refused(Rejection.PROTOCOL_VERSION_NOT_SUPPORTED)
        if request.application_context != APPLICATION_CONTEXT:
            raise Refused(Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED)
        if self._settings.require_called_ae and request.called_ae != self._settings.ae_title:
            raise Refused(Rejection.CALLED_AE_NOT_RECOGNIZED)
        verification_only = all(context.abstract_syntax == VERIFICATION for context in request.contexts)
        if self._draining.is_set() or not self._seats.associate(self, verification_only=verification_only):
            raise Refused(Rejection.LOCAL_LIMIT_EXCEEDED)
        contexts = [accept(context) for context in request.contexts]
        self._contexts = {context.context_id: context for context in contexts if context.accepted}
        self._peer_pdu_max_bytes = request.peer_pdu_max_bytes
        self._wire.send(
            encode_acceptance(
                request,
                contexts,
                pdu_max_bytes=self._settings.pdu_max_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version=IMPLEMENTATION_VERSION_NAME,
            )
        )

    # ---- data transfer (PS3.8 9.3.5) -------------------------------------------------------------------------------

    def _serve(self, sender: Sender) -> None:
        """Take PDUs until the peer asks for release."""
        self._wire.set_timeout(self._settings.idle_timeout_s)
        while True:
            if self._incoming is None and not self._command:
                self._wait_for_message()
            kind, size = _pdu_header(self._wire.read(6))
            if kind == PduType.P_DATA_TF:
                self._take_pdata(size, sender)
            elif kind == PduType.A_RELEASE_RQ:
                self._wire.skip(_fixed(size))
                return
            elif kind == PduType.A_ABORT:
                raise PeerLost("aborted by the peer")
            elif kind in (PduType.A_ASSOCIATE_RQ, PduType.A_ASSOCIATE_AC, PduType.A_ASSOCIATE_RJ, PduType.A_RELEASE_RP):
                raise Violation(AbortReason.UNEXPECTED_PDU)
            else:
                raise Violation(AbortReason.UNRECOGNIZED_PDU)

    def _wait_for_message(self) -> None:
        """Between messages, and only there, the association may be drained."""
        self._rest(True)
        self._wire.peek_wait()
        self._wire.forgive()
        self._rest(False)

    def _rest(self, between_messages: bool) -> None:
        with self._state:
            self._between_messages = between_messages
            if self._draining.is_set():
                raise PeerLost("stopping")

    def _take_pdata(self, remaining: int, sender: Sender) -> None:
        if remaining > self._settings.pdu_max_bytes + PDU_SLACK_BYTES:
            raise Violation(AbortReason.INVALID_PARAMETER)
        while remaining:
            if remaining < 6:
                raise Violation(AbortReason.INVALID_PARAMETER)
            header = self._wire.read(6)
            size = int.from_bytes(header[:4], "big")
            context_id, control = header[4], header[5]
            if not 2 <= size <= remaining - 4:
                raise Violation(AbortReason.INVALID_PARAMETER)
            remaining -= 4 + size
            if control & 1:
                self._take_command(context_id, size - 2, last=bool(control & 2), sender=sender)
            else:
                self._take_data(context_id, size - 2, last=bool(control & 2))

    def _take_command(self, context_id: int, size: int, *, last: bool, sender: Sender) -> None:
        if self._incoming is not None or (self._command and context_id != self._command_context):
            raise Violation(AbortReason.UNEXPECTED_PARAMETER)
        if len(self._command) + size > COMMAND_SIZE_MAX:
            raise Violation(AbortReason.INVALID_PARAMETER)
        self._command_context = context_id
        self._command += self._wire.read(size)
        if not last:
            return
        context = self._contexts.get(context_id)
        if context is None:
            raise Violation(AbortReason.UNEXPECTED_PARAMETER)
        try:
            command = decode_command(self._command)
        except MalformedCommand as malformed:
            raise Violation(AbortReason.INVALID_PARAMETER) from malformed
        self._command.clear()
        self._dispatch(context, command, sender)

    def _dispatch(self, context: PresentationContext, command: Command, sender: Sender) -> None:
        if command.is_response:
            raise Violation(AbortReason.UNEXPECTED_PARAMETER)
        incoming = _Incoming(context, command, None)
        if command.field == CommandField.C_STORE_RQ:
            if context.abstract_syntax == VERIFICATION or command.sop_class_uid != context.abstract_syntax:
                incoming.status = SOP_CLASS_NOT_SUPPORTED
            else:
                incoming.arrival = self._begin(context, command, sender)
        elif command.field == CommandField.C_ECHO_RQ:
            incoming.status = SUCCESS
        elif command.field != CommandField.C_CANCEL_RQ:
            incoming.status = UNRECOGNIZED_OPERATION
        self._incoming = incoming
        if not command.has_dataset:
            self._finish(incoming)

    def _begin(self, context: PresentationContext, command: Command, sender: Sender) -> Arrival:
        if self._buffer is None:
            self._buffer = self._intake.buffer()
        announced = Announced(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax=context.transfer_syntax,
        )
        return self._intake.begin(sender, announced, self._buffer)

    def _take_data(self, context_id: int, size: int, *, last: bool) -> None:
        incoming = self._incoming
        if incoming is None or incoming.context.context_id != context_id:
            raise Violation(AbortReason.UNEXPECTED_PARAMETER)
        if incoming.arrival is None:
            self._skip(incoming, size)
        else:
            self._receive(incoming, incoming.arrival, size)
        if last:
            self._finish(incoming)

    def _receive(self, incoming: _Incoming, arrival: Arrival, size: int) -> None:
        while size:
            try:
                room = arrival.room()
            except Rejected as rejected:
                self._refuse(incoming, rejected)
                raise Violation(AbortReason.NOT_SPECIFIED) from rejected
            piece = min(size, len(room))
            self._wire.read_into(room[:piece])
            arrival.received(piece)
            size -= piece

    def _skip(self, incoming: _Incoming, size: int) -> None:
        incoming.skipped_bytes += size
        if incoming.skipped_bytes > self._settings.object_max_bytes:
            raise Violation(AbortReason.NOT_SPECIFIED)
        self._wire.skip(size)

    # ---- the answer ------------------------------------------------------------------------------------------------

    def _finish(self, incoming: _Incoming) -> None:
        """The message is complete: answer it."""
        if incoming.arrival is not None:
            self._store(incoming, incoming.arrival)
        elif incoming.status is not None:
            self._respond(incoming, incoming.status)
        if incoming.status == SOP_CLASS_NOT_SUPPORTED:
            count_rejection(Rejected(RejectReason.SOP_CLASS_REFUSED))
        self._incoming = None

    def _store(self, incoming: _Incoming, arrival: Arrival) -> None:
        complete_s = self._clock.monotonic_s()
        awaited = self._awaited = _Awaited(incoming, complete_s + self._settings.ack_timeout_s)
        refused: Rejected | None = None
        try:
            published = arrival.publish()
            self._intake.acknowledged(published, arrival)
        except Rejected as rejected:
            refused = rejected
            if rejected.reason is RejectReason.LOG_UNAVAILABLE:
                # The log may still be reading the buffer: it is the log's from now on.
                self._buffer = None
        with self._state:
            if not self._claims_answer(awaited):
                return
        if refused is not None:
            self._refuse(incoming, refused)
            return
        self._respond(incoming, SUCCESS)
        ACKNOWLEDGE_SECONDS.observe(self._clock.monotonic_s() - complete_s)
        self._instances_stored += 1
        reach("edge.acknowledged")

    def _claims_answer(self, awaited: _Awaited) -> bool:
        """Whether nobody has answered yet; the caller, who holds `_state`, does."""
        claims = self._awaited is awaited
        if claims:
            self._awaited = None
        return claims

    def _refuse(self, incoming: _Incoming, rejected: Rejected, *, wait: bool = True) -> None:
        count_rejection(rejected)
        self._log.warning("instance_rejected", reason=rejected.reason.value, detail=rejected.detail)
        self._respond(incoming, rejected.reason.dimse_status, rejected.detail, wait=wait)

    def _respond(self, incoming: _Incoming, status: int, comment: str = "", *, wait: bool = True) -> None:
        response = encode_response(incoming.command, status, comment)
        pdus = encode_response_pdus(incoming.context.context_id, response, self._peer_pdu_max_bytes)
        self._wire.send(pdus, wait=wait)


def _pdu_header(header: memoryview) -> tuple[int, int]:
    return header[0], int.from_bytes(header[2:6], "big")


def _fixed(size: int) -> int:
    """The size of a PDU that always has four bytes."""
    if size != 4:
        raise Violation(AbortReason.INVALID_PARAMETER)
    return size
