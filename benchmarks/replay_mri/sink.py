"""A receiver that does nothing: it takes P-DATA and answers Success. What the senders reach here is their ceiling."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ingest.dimse.acceptance import accept
from ingest.dimse.association_pdu import (
    PduType,
    decode_request,
    encode_acceptance,
    encode_release_response,
)
from ingest.dimse.command import decode_command, encode_response, encode_response_pdus
from instances.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from runtime.lifecycle import die_with_parent, name_process

_PDU_MAX_BYTES: Final = 131072
_COMMAND, _LAST = 1, 2


@contextmanager
def sink() -> Iterator[tuple[int, int]]:
    """A process on a loopback port; gives the port and its pid."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        process = mp.get_context("fork").Process(target=_serve, args=(listener, os.getpid()), daemon=True)
        process.start()
        try:
            assert process.pid is not None
            yield listener.getsockname()[1], process.pid
        finally:
            process.terminate()
            process.join()


def _serve(listener: socket.socket, parent_pid: int) -> None:
    die_with_parent(parent_pid)
    name_process("replay-sink")
    while True:
        connected, _ = listener.accept()
        threading.Thread(target=_take, args=(connected,), daemon=True).start()


def _take(connected: socket.socket) -> None:
    buffer = memoryview(bytearray(_PDU_MAX_BYTES + 64))
    command, context_id = b"", 0
    with connected, suppress(OSError):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while _fill(connected, buffer[:6]):
            kind, size = buffer[0], int.from_bytes(buffer[2:6], "big")
            if size > len(buffer) or not _fill(connected, buffer[:size]):
                return
            if kind == PduType.A_ASSOCIATE_RQ:
                connected.sendall(_acceptance(bytes(buffer[:size])))
            elif kind == PduType.A_RELEASE_RQ:
                connected.sendall(encode_release_response())
            elif kind == PduType.P_DATA_TF:  # our own sender: one PDV a PDU
                flags, context_id = buffer[5], buffer[4]
                if flags & _COMMAND:
                    command = bytes(buffer[6:size])
                elif flags & _LAST:
                    response = encode_response(decode_command(command), 0)
                    connected.sendall(encode_response_pdus(context_id, response, _PDU_MAX_BYTES))


def _acceptance(pdu: bytes) -> bytes:
    request = decode_request(pdu)
    return encode_acceptance(
        request,
        [accept(context) for context in request.contexts],
        pdu_max_bytes=_PDU_MAX_BYTES,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
    )


def _fill(connected: socket.socket, target: memoryview) -> bool:
    """Receive all of `target`; False where the peer has closed."""
    while target:
        received = connected.recv_into(target)
        if not received:
            return False
        target = target[received:]
    return True
