"""Byte-scripted DIMSE peers: every byte on the wire is chosen by the test."""

from __future__ import annotations

import select
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
TIMEOUT_S = 20.0


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def context_item(context_id: int, abstract_syntax: str, *transfer_syntaxes: str) -> bytes:
    syntaxes = b"".join(item(0x40, syntax.encode()) for syntax in transfer_syntaxes)
    return item(0x20, bytes([context_id, 0, 0, 0]) + item(0x30, abstract_syntax.encode()) + syntaxes)


def associate_rq(
    *contexts: tuple[int, str, tuple[str, ...]],
    called_ae: bytes = b"SANSFILM",
    calling_ae: bytes = b"SCRIPTED",
    pdu_max_bytes: int = 16384,
    user: bytes = b"",
    extra: bytes = b"",
    application_context: bytes = b"1.2.840.10008.3.1.1.1",
    version: int = 1,
) -> bytes:
    user_items = item(0x51, struct.pack(">I", pdu_max_bytes)) + item(0x52, b"1.2.3.4") + item(0x55, b"SCRIPT") + user
    body = struct.pack(">HH", version, 0) + called_ae.ljust(16)[:16] + calling_ae.ljust(16)[:16] + bytes(32)
    body += item(0x10, application_context)
    body += b"".join(context_item(context_id, abstract, *syntaxes) for context_id, abstract, syntaxes in contexts)
    return pdu(0x01, body + item(0x50, user_items) + extra)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def uid_value(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def command_set(field: int, *, sop_class_uid: str, sop_instance_uid: str = "", message_id: int = 1) -> bytes:
    dataset_type = 0x0001 if field == 0x0001 else 0x0101
    body = element(0x0002, uid_value(sop_class_uid)) + element(0x0100, struct.pack("<H", field))
    body += element(0x0110, struct.pack("<H", message_id)) + element(0x0700, struct.pack("<H", 0))
    body += element(0x0800, struct.pack("<H", dataset_type))
    if sop_instance_uid:
        body += element(0x1000, uid_value(sop_instance_uid))
    return element(0x0000, struct.pack("<I", len(body))) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a response's command set says."""

    field: int
    status: int
    message_id: int
    sop_instance_uid: str
    comment: str


class Peer:
    """A requestor on a real socket. Use as a context manager."""

    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def is_answered(self, *, within_s: float) -> bool:
        """Whether something can be read, or the connection is closed; waits so long for it."""
        return bool(select.select([self.socket], [], [], within_s)[0])

    def read_pdu(self) -> tuple[int, bytes]:
        """The next PDU: type and body; type 0 when the edge closed."""
        header = self._read(6)
        if len(header) < 6:
            return 0, b""
        return header[0], self._read(int.from_bytes(header[2:6], "big"))

    def associate(self, *contexts: tuple[int, str, tuple[str, ...]], **options: object) -> dict[int, tuple[int, str]]:
        """Negotiate; gives (result, transfer syntax) by presentation context id. Empty if rejected."""
        self.send(associate_rq(*contexts, **options))  # type: ignore[arg-type]
        kind, body = self.read_pdu()
        return answered(body) if kind == 0x02 else {}

    def echo(self, context_id: int = 1, message_id: int = 7) -> Response:
        command = command_set(0x0030, sop_class_uid=VERIFICATION, message_id=message_id)
        self.send(pdu(0x04, pdv(context_id, 0x03, command)))
        return self.read_response()

    def send_store_command(
        self, sop_class_uid: str, sop_instance_uid: str, *, context_id: int = 1, message_id: int = 1
    ) -> None:
        command = command_set(
            0x0001, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, message_id=message_id
        )
        self.send(pdu(0x04, pdv(context_id, 0x03, command)))

    def send_dataset(self, dataset: bytes, *, context_id: int = 1, piece_bytes: int = 65536) -> None:
        for offset in range(0, len(dataset), piece_bytes):
            last = offset + piece_bytes >= len(dataset)
            self.send(pdu(0x04, pdv(context_id, 0x02 if last else 0x00, dataset[offset : offset + piece_bytes])))

    def store(self, sop_class_uid: str, sop_instance_uid: str, dataset: bytes, *, context_id: int = 1) -> Response:
        self.send_store_command(sop_class_uid, sop_instance_uid, context_id=context_id)
        self.send_dataset(dataset, context_id=context_id)
        return self.read_response()

    def read_response(self) -> Response:
        """The next response, put together from as many PDVs as it comes in."""
        command = b""
        while True:
            kind, body = self.read_pdu()
            assert kind == 0x04, f"PDU type {kind} instead of a response: {body!r}"
            command += body[6:]
            if body[5] & 2:
                return response(command)

    def release(self) -> int:
        """Ask for release; the type of the PDU that comes back."""
        self.send(pdu(0x05, bytes(4)))
        return self.read_pdu()[0]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more
        return data


def answered(body: bytes) -> dict[int, tuple[int, str]]:
    """Presentation contexts of an A-ASSOCIATE-AC's body."""
    found = {}
    for kind, value in items(body[68:]):
        if kind == 0x21:
            found[value[0]] = (value[2], dict(items(value[4:]))[0x40].decode())
    return found


def items(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        size = int.from_bytes(body[2:4], "big")
        found.append((body[0], body[4 : 4 + size]))
        body = body[4 + size :]
    return found


def response(command: bytes) -> Response:
    values: dict[int, bytes] = {}
    while command:
        _, number, size = struct.unpack_from("<HHI", command)
        values[number] = command[8 : 8 + size]
        command = command[8 + size :]
    return Response(
        field=int.from_bytes(values[0x0100], "little"),
        status=int.from_bytes(values[0x0900], "little"),
        message_id=int.from_bytes(values[0x0120], "little"),
        sop_instance_uid=values.get(0x1000, b"").rstrip(b"\0").decode(),
        comment=values.get(0x0902, b"").decode().strip(),
    )
