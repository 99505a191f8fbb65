"""Claim checks straight into an object store, and finished segment files carried there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from archive.layout import id_of, instance_key
from archive.s3_access import S3Access
from archive.s3_multipart import PARTS_MAX, InDoubt, MultipartUpload
from archive.s3_objects import S3Objects
from archive.segment_store import Buffer, KeyTaken
from runtime.clock import Clock, SystemClock
from runtime.errors import Retryable
from runtime.logs import get_logger
from schemas.identifiers import SegmentKey
from segments.disk import mapped_errors
from segments.streamed import HEADER_BYTES, StreamedFrame, StreamedMember

MIB = 1024 * 1024
#: Size of a part; larger only where `object_max_bytes` would need too many of them.
PART_BYTES: Final = 8 * MIB
_SEGMENT_OVERHEAD_BYTES = MIB


class S3Uploads:
    """What an edge does with the object store: claim checks, and segments that it spooled. Thread-safe."""

    def __init__(self, access: S3Access, *, object_max_bytes: int, clock: Clock | None = None) -> None:
        self._access = access
        self._objects = S3Objects(access)
        self._clock = clock or SystemClock()
        self.part_bytes = max(PART_BYTES, -(-(object_max_bytes + _SEGMENT_OVERHEAD_BYTES) // PARTS_MAX))

    def open_claim_check(self, tenant: str) -> S3ClaimCheck:
        """Begin a claim check; nothing is sent before its second part is full. Memory: three parts at most."""
        key = instance_key(tenant, self._clock.new_id())
        upload = MultipartUpload(self._access, key)
        return S3ClaimCheck(key, self._objects, upload, part_bytes=self.part_bytes)

    def put_file(self, key: str, path: Path) -> None:
        """Put a finished segment file under its key as it is; durable on return. Success if just that is there already.

        Memory: one part. The server compares a digest of every part; afterwards the length is asked for.

        Raises:
            KeyTaken: another content is there; nothing was changed.
            Retryable, OutOfSpace: nothing is visible half; put it again.
            FileNotFoundError: there is no such file, or no segment can have this key.
        """
        with mapped_errors("read a segment"):
            size_bytes = path.stat().st_size
            if size_bytes <= self.part_bytes:
                self._objects.create(key, [path.read_bytes()])
            elif self._objects.is_there(key):
                self._objects.require_same(key, size_bytes, self._parts(path))
            else:
                self._upload(key, path, size_bytes)

    def _upload(self, key: str, path: Path, size_bytes: int) -> None:
        upload = MultipartUpload(self._access, key)
        try:
            for number, part in enumerate(self._parts(path), start=1):
                upload.put_part(number, part)
            upload.complete()
        except InDoubt:
            self._objects.require_same(key, size_bytes, self._parts(path))
        except BaseException:
            upload.abort()
            raise
        else:
            self._objects.require_whole(key, size_bytes)

    def _parts(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while part := file.read(self.part_bytes):
                yield part


class S3ClaimCheck:
    """`archive.segment_store.ClaimCheck`: a multipart upload whose first part, which holds the header, is sent last.

    Parts are sent by a thread of its own while the next one fills, one at a time. What fits one part is put by one
    create-only PUT.
    """

    def __init__(self, key: SegmentKey, objects: S3Objects, upload: MultipartUpload, *, part_bytes: int) -> None:
        self._key = key
        self._objects = objects
        self._upload = upload
        self._part_bytes = part_bytes
        self._frame = StreamedFrame(id_of(key))
        self._part = bytearray(HEADER_BYTES)
        self._first: bytearray | None = None
        self._parts = 1
        self._sender: ThreadPoolExecutor | None = None
        self._sending: Future[None] | None = None
        self._finished = False

    @property
    def key(self) -> SegmentKey:
        return self._key

    @property
    def size_bytes(self) -> int:
        return self._frame.size_bytes

    @property
    def sha256(self) -> str:
        return self._frame.sha256

    @property
    def crc32c(self) -> str:
        return self._frame.crc32c

    def write(self, chunk: Buffer) -> None:
        """See `ClaimCheck.write`. Waits while the part before is still being sent."""
        self._frame.pass_on(chunk)
        self._append(chunk)

    def finish(self, name: str, provenance: Mapping[str, str]) -> StreamedMember:
        """See `ClaimCheck.finish`."""
        header = self._frame.header(name, provenance)
        try:
            for block in self._frame.end():
                self._append(block)
            if self._first is None:
                self._put_at_once(header)
            else:
                self._complete(self._first, header)
        except BaseException:
            self.abort()
            raise
        self._finished = True
        self._close()
        return self._frame.member()

    def abort(self) -> None:
        """See `ClaimCheck.abort`. Waits for the part being sent."""
        if self._finished:
            return
        self._close()
        self._upload.abort()
        self._part, self._first = bytearray(), None

    def withdraw(self) -> None:
        """See `ClaimCheck.withdraw`. An edge that may not delete leaves it: nothing names it, `verify` lists it."""
        try:
            self._objects.delete(self._key)
        except Retryable as error:
            get_logger().warning("segment_left_unreferred", segment=self._key, error=str(error))

    def _append(self, block: Buffer) -> None:
        view = memoryview(block).cast("B")
        while view:
            room = self._part_bytes - len(self._part)
            self._part += view[:room]
            view = view[room:]
            if len(self._part) == self._part_bytes:
                self._part_filled()

    def _part_filled(self) -> None:
        part, self._part = self._part, bytearray()
        if self._first is None:
            self._first = part
            return
        self._wait()
        self._parts += 1
        if self._sender is None:
            self._sender = ThreadPoolExecutor(1, "claim-check")
        self._sending = self._sender.submit(self._upload.put_part, self._parts, part)

    def _put_at_once(self, header: bytes) -> None:
        self._part[:HEADER_BYTES] = header
        try:
            self._objects.create(self._key, [self._part])
        except KeyTaken as error:
            raise Retryable("this segment's key is taken") from error

    def _complete(self, first: bytearray, header: bytes) -> None:
        if self._part:
            self._part_filled()
        self._wait()
        first[:HEADER_BYTES] = header
        self._upload.put_part(1, first)
        size_bytes = len(first) + self._behind_first_bytes(len(first))
        try:
            self._upload.complete()
        except InDoubt:
            self._require_ours(size_bytes, header)
        else:
            self._objects.require_whole(self._key, size_bytes)

    def _behind_first_bytes(self, first_bytes: int) -> int:
        end_bytes = sum(map(len, self._frame.end()))
        return HEADER_BYTES + self._frame.size_bytes + end_bytes - first_bytes

    def _require_ours(self, size_bytes: int, header: bytes) -> None:
        """Of an upload whose completion got no answer: whether it was completed.

        Uploads appear whole, the key is nobody else's, and the header, which only we know, holds the body's SHA-256.
        """
        try:
            found_bytes = self._objects.size_bytes(self._key)
            is_ours = found_bytes == size_bytes and self._objects.read(self._key, 0, len(header)) == header
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            raise Retryable("the object store did not complete the upload")

    def _wait(self) -> None:
        """Until the part being sent is there. Raises what became of it."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    def _close(self) -> None:
        if self._sender is not None:
            self._sender.shutdown(wait=True)
            self._sender = None
            self._sending = None
