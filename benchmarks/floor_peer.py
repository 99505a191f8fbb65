"""The least a durable acknowledgement can cost: ``python -m benchmarks.floor_peer PORT FOLDER``.

Takes every presentation context with its first transfer syntax, writes each data set behind the last one of its
association, past the page cache, syncs it, and says Success. No checks, no limits, no header, no index, no log shared
between associations: a process and a file for each. Only for the benchmark's own sender.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 4096
_MEMORY_BYTES = 1 << 20
_PDU_BYTES = 131072
_CONTEXT = b"1.2.840.10008.3.1.1.1"


def serve(port: int, folder: Path) -> None:
    """Accept for ever, a process for each association."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            connected, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                try:
                    _associate(connected, folder / f"{os.getpid()}.bin")
                finally:
                    os._exit(0)
            connected.close()


def _associate(connected: socket.socket, path: Path) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    memory = memoryview(mmap.mmap(-1, _MEMORY_BYTES))
    kind, size = _header(connected, memory)
    if kind != 1:
        return  # whoever looked whether we listen
    connected.sendall(_acceptance(bytes(_exactly(connected, memory[:size]))))
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
    command, end, offset = b"", 0, 0
    while True:
        kind, size = _header(connected, memory[_MEMORY_BYTES - 6 :])
        if kind != 4:
            connected.sendall(b"\6\0\0\0\0\4\0\0\0\0")
            return
        pdv = bytes(_exactly(connected, memory[_MEMORY_BYTES - 6 :]))
        target = memory[end : end + size - 6]
        _exactly(connected, target)
        if pdv[5] & 1:
            command = bytes(target)
            continue
        end += size - 6
        if pdv[5] & 2:
            padded = end + -end % _BLOCK
            os.pwrite(descriptor, memory[:padded], offset)
            os.fdatasync(descriptor)
            connected.sendall(_success(command, pdv[4]))
            end, offset = 0, offset + padded


def _header(connected: socket.socket, memory: memoryview) -> tuple[int, int]:
    header = _exactly(connected, memory[:6])
    return (header[0], int.from_bytes(header[2:6], "big")) if header else (0, 0)


def _exactly(connected: socket.socket, target: memoryview) -> memoryview:
    """Fill `target`; nothing if the peer is gone."""
    filled = 0
    while filled < len(target):
        got = connected.recv_into(target[filled:], 0, socket.MSG_WAITALL)
        if not got:
            return target[:0]
        filled += got
    return target


def _acceptance(request: bytes) -> bytes:
    body = struct.pack(">HH", 1, 0) + request[4:68] + _item(0x10, _CONTEXT)
    for kind, context in _items(request[68:]):
        if kind == 0x20:
            syntax = next(value for kind, value in _items(context[4:]) if kind == 0x40)
            body += _item(0x21, bytes([context[0], 0, 0, 0]) + _item(0x40, syntax))
    body += _item(0x50, _item(0x51, struct.pack(">I", _PDU_BYTES)) + _item(0x52, b"1.2.3"))
    return struct.pack(">BBI", 2, 0, len(body)) + body


def _success(command: bytes, context_id: int) -> bytes:
    said = {}
    at = 0
    while at < len(command):
        _, element, size = struct.unpack_from("<HHI", command, at)
        said[element], at = command[at + 8 : at + 8 + size], at + 8 + size
    answered = {2: said[2], 0x100: b"\1\x80", 0x120: said[0x110], 0x800: b"\1\1", 0x900: b"\0\0", 0x1000: said[0x1000]}
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in answered.items())
    body = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    return struct.pack(">BBIIBB", 4, 0, len(body) + 6, len(body) + 2, context_id, 3) + body


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(encoded):
        kind, _, size = struct.unpack_from(">BBH", encoded, at)
        yield kind, encoded[at + 4 : at + 4 + size]
        at += 4 + size


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
