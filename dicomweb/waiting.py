"""Bodies that are whole in memory while their clients read them: how much of that there may be in all."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncGenerator
from typing import Final

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Send

from dicomweb.problems import Unavailable

PIECE_MAX_BYTES: Final = 256 * 1024
_WAIT_S: Final = 10.0
_POLL_S: Final = 0.02


class WaitingBodies:
    """The budget of a process. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What waits now."""
        return self._size_bytes

    async def room(self, size_bytes: int) -> None:
        """Wait for room before a body of this size is read or decoded; nothing is reserved.

        Raises:
            Unavailable: slow clients took it up all the time.
        """
        with anyio.move_on_after(_WAIT_S):
            while self._size_bytes and self._size_bytes + size_bytes > self._max_bytes:
                await anyio.sleep(_POLL_S)
            return
        raise Unavailable("Too many large answers wait for their readers; ask again in a moment.")

    def pieces(self, body: bytes | memoryview) -> Pieces:
        """`body`, which counts until the iterator is gone, whoever drops it."""
        with self._lock:
            self._size_bytes += len(body)
        pieces = Pieces(body)
        weakref.finalize(pieces, self._forget, len(body))
        return pieces

    def _forget(self, size_bytes: int) -> None:
        with self._lock:
            self._size_bytes -= size_bytes


class Pieces:
    """An async iterator over a body in pieces of at most `PIECE_MAX_BYTES`."""

    def __init__(self, body: bytes | memoryview) -> None:
        self._rest = memoryview(body)

    def __len__(self) -> int:
        """Bytes that are left."""
        return len(self._rest)

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        piece, self._rest = bytes(self._rest[:PIECE_MAX_BYTES]), self._rest[PIECE_MAX_BYTES:]
        return piece


class StreamedAnswer(StreamingResponse):
    """A streamed answer that lets go of its body the moment it ends, also if it is broken off."""

    async def stream_response(self, send: Send) -> None:
        """Send the body, then close its iterator: left to the collector, it would hold its memory for a while."""
        try:
            await super().stream_response(send)
        finally:
            if isinstance(self.body_iterator, AsyncGenerator):
                await self.body_iterator.aclose()
            self.body_iterator = Pieces(b"")
