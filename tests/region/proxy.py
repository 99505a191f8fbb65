"""A TCP proxy that does to bytes what networks do: drops them in mid-flow, holds, flips; or answers by itself."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_READ_BYTES = 65536


class Proxy:
    """Forwards connections on a free loopback port to `target_port`. A context manager.

    What it is told to do, it does once, to whichever connection next has the bytes; `settled` tells when that was.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._request_rule: Callable[[bytes], bytes | None] | None = None
        self._answer_rule: Callable[[bytes], bytes | None] | None = None
        self._own_answers: deque[bytes] = deque()
        self.settled = threading.Event()
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def drop_request_after(self, size_bytes: int) -> None:
        """Close both ends once so many more bytes went towards the server."""
        self.settled.clear()
        self._request_rule = _dropper(size_bytes)

    def drop_answer_after(self, size_bytes: int) -> None:
        """Close both ends once so many more bytes came from the server; 0: the whole answer is lost."""
        self.settled.clear()
        self._answer_rule = _dropper(size_bytes)

    def flip_request_bit_after(self, size_bytes: int) -> None:
        """Change one bit of what goes towards the server, so many bytes from now."""
        self.settled.clear()
        self._request_rule = _flipper(size_bytes)

    def answer(self, status: int, body: bytes = b"", *, headers: str = "", times: int = 1) -> None:
        """Answer the next requests ourselves, after what was told before; the server does not hear of them."""
        self.settled.clear()
        head = f"HTTP/1.1 {status} Fault\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n".encode()
        self._own_answers.extend([head + body] * times)

    def hold(self) -> None:
        """Let no byte pass, either way, until `release`."""
        self._flowing.clear()

    def release(self) -> None:
        self._flowing.set()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flowing.set()
        _close(self._listener)
        with self._lock:
            for one in self._open:
                _close(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink, towards_server in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, towards_server), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, towards_server: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_READ_BYTES):
                self._flowing.wait()
                if towards_server and self._answers(source):
                    break
                passed = self._ruled(data, towards_server)
                if passed is None:
                    break
                sink.sendall(passed)
        _close(source)
        _close(sink)
        with self._lock:
            self._open -= {source, sink}

    def _answers(self, client: socket.socket) -> bool:
        with self._lock:
            if not self._own_answers:
                return False
            answer = self._own_answers.popleft()
            if not self._own_answers:
                self.settled.set()
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while client.recv(_READ_BYTES):  # closing with bytes unread would reset the answer away
                pass
        return True

    def _ruled(self, data: bytes, towards_server: bool) -> bytes | None:
        with self._lock:
            rule = self._request_rule if towards_server else self._answer_rule
            if rule is None:
                return data
            changed = rule(data)
            if changed is data:
                return data
            if towards_server:
                self._request_rule = None
            else:
                self._answer_rule = None
            self.settled.set()
            return changed


def _dropper(size_bytes: int) -> Callable[[bytes], bytes | None]:
    left = size_bytes

    def rule(data: bytes) -> bytes | None:
        nonlocal left
        left -= len(data)
        return data if left > 0 else None

    return rule


def _flipper(size_bytes: int) -> Callable[[bytes], bytes | None]:
    left = size_bytes

    def rule(data: bytes) -> bytes | None:
        nonlocal left
        if left >= len(data):
            left -= len(data)
            return data
        return data[:left] + bytes([data[left] ^ 1]) + data[left + 1 :]

    return rule


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
