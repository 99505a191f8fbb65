"""One outgoing association: what a C-STORE and C-ECHO user needs of PS3.8 and PS3.7, and nothing else.

Data sets go out as they lie in their files, cut into P-DATA-TF PDUs by `sendmsg` without being joined or decoded.
One thread per association; every wait is bounded by `timeout_s`.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from instances.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from instances.syntax import DEFLATED_LE
from runtime.errors import Fatal, Misconfigured, Retryable

#: An abstract syntax with the one transfer syntax proposed for it.
Context = tuple[str, str]
#: Presentation context ids are odd and fit a byte (PS3.8 9.3.2.2).
CONTEXTS_MAX: Final = 128

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_VERIFICATION = "1.2.840.10008.1.1"
_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 2, 3, 4, 5, 6, 7
_C_STORE_RQ, _C_ECHO_RQ = 0x0001, 0x0030
_NO_DATA_SET = 0x0101
_PDU_DEFAULT_BYTES = 131072
_REPLY_MAX_BYTES = 1024 * 1024
_PDUS_PER_CALL = 16


class PeerLost(Retryable):
    """The peer cannot be reached, went silent, or ended the association; what it did not answer may be sent again."""


class PeerRefused(Fatal):
    """The peer rejects the association for good (PS3.8 9.3.4); the message names its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to call, and as whom."""

    called_ae: str
    host: str
    port: int
    calling_ae: str = "SANSFILM-SCU"

    @classmethod
    def parse(cls, text: str, *, calling_ae: str = "SANSFILM-SCU") -> Peer:
        """``AE@host:port``; without ``AE@`` the called title is ANY-SCP.

        Raises:
            Misconfigured: it has another form.
        """
        form = re.fullmatch(r"(?:([^@\\]{1,16})@)?(\[[0-9a-fA-F:]+\]|[^:@\s]+):(\d{1,5})", text)
        if form is None or not 0 < int(form[3]) < 65536 or not 0 < len(calling_ae) <= 16:
            raise Misconfigured(f"{text!r} is not of the form AE@host:port")
        return cls(called_ae=form[1] or "ANY-SCP", host=form[2].strip("[]"), port=int(form[3]), calling_ae=calling_ae)

    def __str__(self) -> str:
        return f"{self.called_ae}@{self.host}:{self.port}"


class Association:
    """An association with `peer`, requested on construction.

    `accepted` has the presentation context id of every context the peer took.

    Raises:
        PeerLost: nobody answers, or a passing rejection.
        PeerRefused: a lasting rejection.
    """

    accepted: Mapping[Context, int]

    def __init__(self, peer: Peer, contexts: Sequence[Context], *, timeout_s: float = 60.0) -> None:
        if not 0 < len(contexts) <= CONTEXTS_MAX:
            raise ValueError(f"an association carries 1 to {CONTEXTS_MAX} presentation contexts")
        self._messages = 0
        try:
            self._socket = socket.create_connection((peer.host, peer.port), timeout=timeout_s)
        except OSError as error:
            raise PeerLost(f"{peer} cannot be reached: {_reason(error)}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._send(_associate_rq(peer, contexts))
            answer = self._expect(_ASSOCIATE_AC)
            self.accepted, announced = _read_associate_ac(answer, contexts)
        except BaseException:
            self._socket.close()
            raise
        # Fragments are of even length (PS3.8 E.2).
        self._pdv_max_bytes = (min(announced or _PDU_DEFAULT_BYTES, 8 * _PDU_DEFAULT_BYTES) - 6) & ~1

    def store(self, context: Context, sop_instance_uid: str, dataset: memoryview) -> int:
        """C-STORE `dataset` as it is; gives the status of the response.

        A deflated data set of odd length gets the one zero byte that PS3.5 A.5 asks for.

        Raises:
            PeerLost: no response; the association is over.
            KeyError: the peer did not accept `context`.
        """
        context_id = self.accepted[context]
        command = self._command(_C_STORE_RQ, context[0], sop_instance_uid)
        try:
            self._send(_pdv_header(context_id, 3, len(command)), command)
            self._send_dataset(context_id, dataset, padding=context[1] == DEFLATED_LE)
        except PeerLost:
            # A peer that refuses in mid-transfer answers and closes: its answer is worth more than our broken pipe.
            return self._status_or_lost()
        return self._status()

    def echo(self) -> int:
        """C-ECHO; gives the status. The association must carry Verification."""
        context_id = next(number for (abstract, _), number in self.accepted.items() if abstract == _VERIFICATION)
        command = self._command(_C_ECHO_RQ, _VERIFICATION, "")
        self._send(_pdv_header(context_id, 3, len(command)), command)
        return self._status()

    def release(self) -> None:
        """End the association in the orderly way; a peer that does not answer is left alone."""
        try:
            self._send(struct.pack(">BxI4x", _RELEASE_RQ, 4))
            self._expect(_RELEASE_RP)
        except (PeerLost, PeerRefused):
            pass
        finally:
            self._socket.close()

    def abort(self) -> None:
        """End it at once."""
        try:
            self._send(struct.pack(">BxI4x", _ABORT, 4))
        except PeerLost:
            pass
        finally:
            self._socket.close()

    def _command(self, field: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
        self._messages = self._messages % 65535 + 1
        data_set = 0x0001 if field == _C_STORE_RQ else _NO_DATA_SET
        elements = (
            _uid_element(0x0002, sop_class_uid) + _us_element(0x0100, field) + _us_element(0x0110, self._messages)
        )
        if field == _C_STORE_RQ:
            elements += _us_element(0x0700, 0)
        elements += _us_element(0x0800, data_set)
        if sop_instance_uid:
            elements += _uid_element(0x1000, sop_instance_uid)
        return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements

    def _send_dataset(self, context_id: int, dataset: memoryview, *, padding: bool) -> None:
        tail = b"\0" if padding and len(dataset) % 2 else b""
        starts = range(0, max(len(dataset), 1), self._pdv_max_bytes)
        for first in range(0, len(starts), _PDUS_PER_CALL):
            parts: list[bytes | memoryview] = []
            for start in starts[first : first + _PDUS_PER_CALL]:
                fragment = dataset[start : start + self._pdv_max_bytes]
                last = start + len(fragment) >= len(dataset)
                end = tail if last else b""
                parts += (_pdv_header(context_id, 2 if last else 0, len(fragment) + len(end)), fragment, end)
            self._send(*parts)

    def _send(self, *parts: bytes | memoryview) -> None:
        try:
            waiting = [memoryview(part) for part in parts if len(part)]
            while waiting:
                sent = self._socket.sendmsg(waiting)
                while waiting and sent >= len(waiting[0]):
                    sent -= len(waiting.pop(0))
                if waiting:
                    waiting[0] = waiting[0][sent:]
        except OSError as error:
            raise PeerLost(f"the association broke: {_reason(error)}") from error

    def _status_or_lost(self) -> int:
        try:
            return self._status()
        finally:
            self._socket.close()

    def _status(self) -> int:
        """The status of the next response (PS3.7 9.3.1.2)."""
        command = b""
        while True:
            body = memoryview(self._expect(_P_DATA))
            while len(body) >= 6:
                size, _, flags = struct.unpack_from(">IBB", body)
                if not 2 <= size <= len(body) - 4:
                    raise PeerLost("the peer sent a malformed PDV")
                command += body[6 : 4 + size]
                body = body[4 + size :]
                if flags & 3 == 3:
                    return _read_status(command)
            if len(command) > _REPLY_MAX_BYTES:
                raise PeerLost("the peer's response does not end")

    def _expect(self, kind: int) -> bytes:
        got, body = self._receive_pdu()
        if got == kind:
            return body
        if got == _ASSOCIATE_RJ and len(body) >= 4:
            raise _rejection(body[1], body[2], body[3])
        if got == _ABORT:
            raise PeerLost("the peer aborted the association")
        raise PeerLost(f"the peer sent PDU type {got:02X}H where {kind:02X}H was due")

    def _receive_pdu(self) -> tuple[int, bytes]:
        kind, size = struct.unpack(">BxI", self._receive(6))
        if size > _REPLY_MAX_BYTES:
            raise PeerLost("the peer announced a PDU beyond any response's size")
        return kind, self._receive(size)

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        try:
            while len(received) < size:
                piece = self._socket.recv(size - len(received))
                if not piece:
                    raise PeerLost("the peer closed the connection")
                received += piece
        except OSError as error:
            raise PeerLost(f"no answer: {_reason(error)}") from error
        return bytes(received)


# ---- PS3.8 9.3: association PDUs ------------------------------------------------------------------------------------


def _associate_rq(peer: Peer, contexts: Sequence[Context]) -> bytes:
    proposed = b"".join(
        _item(
            0x20,
            bytes((2 * index + 1, 0, 0, 0)) + _item(0x30, abstract.encode()) + _item(0x40, syntax.encode()),
        )
        for index, (abstract, syntax) in enumerate(contexts)
    )
    user = _item(0x51, struct.pack(">I", _PDU_DEFAULT_BYTES)) + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    user += _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    titles = f"{peer.called_ae:<16}{peer.calling_ae:<16}".encode("ascii", "replace")
    body = struct.pack(">Hxx", 1) + titles + bytes(32)
    body += _item(0x10, _APPLICATION_CONTEXT.encode()) + proposed + _item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _read_associate_ac(body: bytes, contexts: Sequence[Context]) -> tuple[dict[Context, int], int]:
    """Accepted contexts, and the PDU size the peer announces (0: any)."""
    accepted: dict[Context, int] = {}
    announced = 0
    for kind, value in _items(body[68:]):
        if kind == 0x21 and len(value) >= 4 and value[2] == 0 and value[0] // 2 < len(contexts):
            accepted[contexts[value[0] // 2]] = value[0]
        elif kind == 0x50:
            sizes = [struct.unpack(">I", size)[0] for sub, size in _items(value) if sub == 0x51 and len(size) == 4]
            announced = sizes[0] if sizes else 0
    if 0 < announced < 16:
        raise PeerLost("the peer announced an impossible PDU size")
    return accepted, announced


def _items(encoded: bytes) -> list[tuple[int, bytes]]:
    items = []
    while len(encoded) >= 4:
        kind, size = struct.unpack_from(">BxH", encoded)
        items.append((kind, encoded[4 : 4 + size]))
        encoded = encoded[4 + size :]
    return items


def _rejection(result: int, source: int, reason: int) -> PeerLost | PeerRefused:
    why = _REJECTIONS.get((source, reason), f"source {source}, reason {reason}")
    if result == 2:
        return PeerLost(f"the peer rejects the association for now: {why}")
    return PeerRefused(f"the peer rejects the association: {why}")


_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


# ---- PS3.7 E.1: command elements, implicit little endian ------------------------------------------------------------


def _pdv_header(context_id: int, flags: int, size_bytes: int) -> bytes:
    return struct.pack(">BxIIBB", _P_DATA, size_bytes + 6, size_bytes + 2, context_id, flags)


def _us_element(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _uid_element(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    value += bytes(len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def _read_status(command: bytes) -> int:
    offset = 0
    while offset + 8 <= len(command):
        group, element, size = struct.unpack_from("<HHI", command, offset)
        if (group, element, size) == (0, 0x0900, 2) and offset + 10 <= len(command):
            return int(struct.unpack_from("<H", command, offset + 8)[0])
        offset += 8 + size
    raise PeerLost("the peer's response has no status")


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return (error.strerror or type(error).__name__).lower()
