"""The bytes of one association: buffered for what is small, straight into the caller's buffer for what is large."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Final

#: What is read ahead: headers, command sets, and the beginning of the next PDU.
READ_AHEAD_BYTES: Final = 65536
#: What must come of a message within the idle timeout, unless it ends before: a kilobyte a second by default.
PROGRESS_BYTES: Final = 65536


class PeerLost(Exception):
    """The peer closed, reset, or fell silent: there is nobody to answer."""


class PeerSilent(PeerLost):
    """Nothing came for as long as was agreed."""


class Wire:
    """A connected socket, read by one thread. Closing from another thread wakes it.

    Waits are bounded by the kernel (``SO_RCVTIMEO``, ``SO_SNDTIMEO``): one system call a read instead of two.
    """

    def __init__(self, connected: socket.socket, *, send_timeout_s: float) -> None:
        self._socket = connected
        self._buffer = memoryview(bytearray(READ_AHEAD_BYTES))
        self._start = self._end = 0
        self._patience_s = float("inf")
        self._waited_s = 0.0
        self._came_bytes = 0
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_timeout_s))
        # A Unix socket pair has no such option.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def set_timeout(self, timeout_s: float) -> None:
        """Longest silence from now on, and longest wait for `PROGRESS_BYTES` of a message, however they trickle."""
        self._patience_s = timeout_s
        self.forgive()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout_s))

    def forgive(self) -> None:
        """A message begins: what was waited for before does not count."""
        self._waited_s, self._came_bytes = 0.0, 0

    def peek_wait(self) -> None:
        """Wait until at least one byte can be read.

        Raises:
            PeerLost: closed, or silent too long.
        """
        if self._start == self._end:
            self._fill()

    def read(self, size_bytes: int, *, deadline: float | None = None) -> memoryview:
        """Exactly this many bytes, at most `READ_AHEAD_BYTES`; valid until the next call.

        `deadline` (``time.monotonic``) bounds the whole read, however the bytes trickle.
        """
        while self._end - self._start < size_bytes:
            if deadline is not None:
                self._shorten(deadline)
            self._fill()
        found = self._buffer[self._start : self._start + size_bytes]
        self._start += size_bytes
        return found

    def read_into(self, target: memoryview) -> None:
        """Fill `target`: what was read ahead is copied, the rest goes from the kernel to its place."""
        filled = min(len(target), self._end - self._start)
        if filled:
            target[:filled] = self._buffer[self._start : self._start + filled]
            self._start += filled
        while filled < len(target):
            rest = target[filled:]
            got = self._receive([rest, self._buffer])
            if got > len(rest):
                self._start, self._end = 0, got - len(rest)
                return
            filled += got

    def skip(self, size_bytes: int) -> None:
        """Read and forget this many bytes."""
        while size_bytes:
            self.peek_wait()
            taken = min(size_bytes, self._end - self._start)
            self._start += taken
            size_bytes -= taken

    def send(self, data: bytes, *, wait: bool = True) -> None:
        """Send all of `data`; unless `wait`, only if there is room for it now.

        Raises:
            PeerLost: the peer closed, or does not read.
        """
        try:
            self._socket.sendall(data, 0 if wait else socket.MSG_DONTWAIT)
        except OSError as error:
            raise PeerLost(type(error).__name__) from error

    def linger(self, timeout_s: float) -> None:
        """After a last word: let the peer read it and close, for this long at most. What it still sends is dropped."""
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while (remaining := deadline - time.monotonic()) > 0:
                self.set_timeout(remaining)
                if not self._socket.recv_into(self._buffer):
                    return
        except OSError:
            return

    def stop_reading(self) -> None:
        """Wake the reading thread as if the peer had closed; writing goes on. From any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """End both directions and wake whoever waits. From any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _fill(self) -> None:
        if self._start:
            pending = self._end - self._start
            self._buffer[:pending] = self._buffer[self._start : self._end]
            self._start, self._end = 0, pending
        self._end += self._receive([self._buffer[self._end :]])

    def _receive(self, into: list[memoryview]) -> int:
        asked_s = time.monotonic()
        try:
            got = self._socket.recvmsg_into(into)[0]
        except BlockingIOError as error:
            raise PeerSilent("nothing was sent in time") from error
        except OSError as error:
            raise PeerLost(type(error).__name__) from error
        if not got:
            raise PeerLost("closed")
        self._waited_s += time.monotonic() - asked_s
        self._came_bytes += got
        if self._came_bytes >= PROGRESS_BYTES:
            self.forgive()
        elif self._waited_s > self._patience_s:
            raise PeerSilent("too little was sent in time")
        return got

    def _shorten(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise PeerSilent("not complete in time")
        self.set_timeout(remaining)


def _timeval(timeout_s: float) -> bytes:
    """A ``struct timeval``; zero would mean for ever."""
    microseconds = max(1, round(timeout_s * 1e6))
    return struct.pack("@ll", microseconds // 1_000_000, microseconds % 1_000_000)
