"""Objects of the archive by key: created once and verified, read by range, removed.

What is verified by what. On the way: the server compares the SHA-256 that each PUT carries with the bytes it got. After
it: a HEAD gives the length, and the e-tag that the PUT was answered with. What is there already and may be ours (a PUT
whose answer was lost, met by its repetition as *already exists*): read back and compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from archive import layout
from archive.s3_access import S3Access
from archive.s3_errors import Denied, mapped_errors
from archive.segment_store import Buffer, KeyTaken
from runtime.errors import Retryable
from runtime.logs import get_logger
from segments.tar import SegmentDamaged

MIB = 1024 * 1024
#: What one ranged GET asks for when an object is read in pieces.
PIECE_BYTES: Final = 8 * MIB


class S3Objects:
    """The objects below ``segments/``. Thread-safe. Keys are checked: they come from messages and catalogs."""

    def __init__(self, access: S3Access) -> None:
        self.reading: S3Store = access.reading()
        self.writing: S3Store = access.writing()

    def create(self, key: str, blocks: Sequence[Buffer]) -> None:
        """Make an object of the blocks, one after the other, by one PUT; none is copied. Or find just that object made.

        Raises:
            KeyTaken: another content is there.
            Retryable, OutOfSpace: it may be there, or not; create it again.
        """
        size_bytes, name = sum(map(len, blocks)), name_of(key)
        try:
            with mapped_errors("put a segment"):
                answer = obstore.put(self.writing, name, blocks, mode="create", use_multipart=False)
        except AlreadyExistsError:
            answer = None
        if answer is None:
            self.require_same(key, size_bytes, blocks)
        else:
            self.require_whole(key, size_bytes, answer["e_tag"])

    def require_whole(self, key: str, size_bytes: int, e_tag: str | None = None) -> None:
        """After a PUT that was answered: whether the object has this length, and the e-tag if one is given.

        Whoever may not read has the server's answer alone.

        Raises:
            Retryable: it is not so, or the store is away.
        """
        try:
            with mapped_errors("verify a segment"):
                found = obstore.head(self.reading, name_of(key))
        except Denied:
            return
        except FileNotFoundError:
            raise Retryable("the object store has not what was put") from None
        if found["size"] != size_bytes or e_tag not in (None, found["e_tag"]):
            raise Retryable("the object store has not what was put")

    def require_same(self, key: str, size_bytes: int, blocks: Iterable[Buffer]) -> None:
        """Of an object that is there already: whether it is the blocks, byte by byte.

        Raises:
            KeyTaken: it is not.
            Retryable: the store is away, or does not let us read.
        """
        try:
            same = self.size_bytes(key) == size_bytes and same_bytes(self.pieces(key, 0, size_bytes), blocks)
        except FileNotFoundError:
            raise Retryable("the object was there and is gone") from None
        if not same:
            get_logger().error("segment_key_taken", segment=key)
            raise KeyTaken("another object has this segment's key")
        get_logger().info("segment_found_put", segment=key, size_bytes=size_bytes)

    def is_there(self, key: str) -> bool:
        """Whether there is such an object; False also if we may not know."""
        try:
            self.size_bytes(key)
        except (FileNotFoundError, Denied):
            return False
        return True

    def size_bytes(self, key: str) -> int:
        """The size of an object. FileNotFoundError if there is none, Retryable."""
        return self.end(key, 1)[1]

    def read(self, key: str, start: int, size: int) -> bytes:
        """Bytes of an object, by one ranged GET.

        Raises:
            FileNotFoundError: there is no such object.
            SegmentDamaged: it ends before the range does.
            Retryable: the store is away, or gave fewer bytes than the object has.
        """
        if not size:
            return b""
        with mapped_errors("read a segment"):
            result = obstore.get(self.reading, name_of(key), options={"range": (start, start + size)})
            if result.meta["size"] < start + size:
                raise SegmentDamaged("the segment is shorter than its index says")
            got = result.bytes().to_bytes()
        if len(got) != size:
            raise Retryable("the object store gave fewer bytes than it has")
        return got

    def pieces(self, key: str, start: int, size: int, each: int = PIECE_BYTES) -> Iterator[bytes]:
        """The same in pieces, each by a ranged GET of its own."""
        for at in range(start, start + size, each):
            yield self.read(key, at, min(each, start + size - at))

    def end(self, key: str, size: int) -> tuple[bytes, int]:
        """The last bytes of an object, and its size."""
        with mapped_errors("read a segment's end"):
            result = obstore.get(self.reading, name_of(key), options={"range": {"suffix": size}})
            whole: int = result.meta["size"]
            tail = result.bytes().to_bytes()
        if len(tail) != min(size, whole):
            raise Retryable("the object store gave fewer bytes than it has")
        return tail, whole

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        name = name_of(key)
        try:
            with mapped_errors("delete a segment"):
                obstore.delete(self.reading, name)
        except FileNotFoundError:
            return


def name_of(key: str) -> str:
    """The object's name below the archive's root. FileNotFoundError: no segment can have this key."""
    return f"{layout.SEGMENTS}/{layout.checked(key)}"


def same_bytes(pieces: Iterator[bytes], blocks: Iterable[Buffer]) -> bool:
    """Whether the pieces, joined, are the blocks, joined; neither is joined."""
    views = (memoryview(block).cast("B") for block in blocks)
    left = memoryview(b"")
    for piece in pieces:
        given = memoryview(piece)
        while given:
            while not left:
                following = next(views, None)
                if following is None:
                    return False
                left = following
            size = min(len(left), len(given))
            if left[:size] != given[:size]:
                return False
            left, given = left[size:], given[size:]
    return not left and not any(map(len, views))
