"""Writing multipart/related (RFC 2387, PS3.18 8.6.1.2): a random boundary, parts streamed one after the other."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its content type and its body in pieces of bounded size."""

    content_type: str
    pieces: AsyncIterator[bytes]
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipart:
    """An answer of several parts of one type; `parts` is consumed once, one part at a time."""

    #: The `type` parameter: the media type of the first part without parameters.
    part_type: str
    parts: AsyncIterator[Part]
    boundary: str

    @property
    def content_type(self) -> str:
        """For the answer's header."""
        return f'multipart/related; type="{self.part_type}"; boundary={self.boundary}'

    async def body(self) -> AsyncIterator[bytes]:
        """The whole body in bounded pieces; nothing of the next part is read before this one has gone out."""
        async for part in self.parts:
            yield self._head(part)
            async for piece in part.pieces:
                yield piece
            yield b"\r\n"
        yield f"--{self.boundary}--\r\n".encode()

    def _head(self, part: Part) -> bytes:
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        return f"--{self.boundary}\r\nContent-Type: {part.content_type}\r\n{location}\r\n".encode()


def new_boundary() -> str:
    """A boundary that no stored byte string can have been made to contain: 128 random bits."""
    return f"sansfilm-{secrets.token_hex(16)}"


def single_part(part_type: str, content_type: str, content: bytes) -> tuple[bytes, str]:
    """A whole body of one part that is in memory already, and its content type: what viewers ask for most."""
    boundary = new_boundary()
    head = f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    return b"".join((head, content, tail)), f'multipart/related; type="{part_type}"; boundary={boundary}'
