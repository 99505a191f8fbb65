"""What every reader works with: the settings, the catalog, the bytes, the decoder, and on whose behalf.

Blocking calls run in threads of a bounded pool; a call that touches a database cursor begins and ends in one thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request

from archive.catalog import CatalogReader, Readable, Scope
from archive.segment_store import Buffer, SegmentStore
from dicomweb.heads import HeadCache
from dicomweb.problems import NotFound
from dicomweb.waiting import PIECE_MAX_BYTES, Pieces, WaitingBodies
from runtime.settings import WebSettings
from schemas.identifiers import is_safe_uid, is_tenant
from schemas.record import InstanceAttributes

T = TypeVar("T")
THREADS: Final = 32
UNNAMED: Final = "anonymous"


class Decoder(Protocol):
    """Gives stored instances their native form; `instances.decode.IsolatedDecoder` is one."""

    def to_explicit_le(self, file: Buffer, *, recipe: Mapping[str, object] | None = None) -> bytes:
        """The data set of a Part-10 file, as Explicit VR Little Endian with native Pixel Data."""

    def frame(
        self, codestream: Buffer, transfer_syntax: str, instance: InstanceAttributes, *, trusted: bool = False
    ) -> bytes:
        """The native samples of one frame."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One per process; owns nothing that must be closed."""

    settings: WebSettings
    reader: CatalogReader
    store: SegmentStore
    decoder: Decoder
    heads: HeadCache = field(default_factory=HeadCache)
    _threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(THREADS))
    _decodes: list[CapacityLimiter] = field(default_factory=list)
    _waiting: list[WaitingBodies] = field(default_factory=list)

    def scope(self, request: Request) -> Scope:
        """On whose behalf `request` reads, and in which tenant.

        Raises:
            NotFound: the tenant cannot exist.
        """
        tenant = request.path_params.get("tenant", self.settings.tenant)
        if not is_tenant(tenant):
            raise NotFound("There is no such tenant.")
        return Scope(principal=UNNAMED, tenant=tenant)

    async def call(self, blocking: Callable[[], T]) -> T:
        """Run `blocking` in a thread of the pool."""
        return await run_sync(blocking, limiter=self._threads)

    async def readables(self, request: Request) -> Sequence[Readable]:
        """The visible instances that the path of `request` names; about 3 kB each are held.

        Raises:
            NotFound: there are none, or the path holds no UIDs.
        """
        scope, uids = self.scope(request), uids_of(request)
        study, series, instance = uids.get("study", ""), uids.get("series"), uids.get("instance")
        found = await self.call(lambda: list(self.reader.instances(scope, study, series, instance)))
        if not found:
            raise NotFound
        return found

    async def read(self, readable: Readable, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Bytes of a stored file, read in a thread; see `read_blocking`.

        Raises:
            Unavailable: it is large, and too many large answers wait already.
        """
        asked_bytes = readable.location.size_bytes - offset if size_bytes is None else size_bytes
        if asked_bytes > PIECE_MAX_BYTES:
            await self.waiting.room(asked_bytes)
        return await self.call(lambda: self.read_blocking(readable, offset, size_bytes))

    def read_blocking(self, readable: Readable, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Bytes of a stored file. A segment that compaction removed meanwhile is looked up once more.

        Raises:
            NotFound: it is gone for good, or another version is current now, which would not fit what was sent.
        """
        try:
            return self.store.read(readable.location, offset, size_bytes)
        except FileNotFoundError:
            moved = self._located_again(readable)
        try:
            return self.store.read(moved.location, offset, size_bytes)
        except FileNotFoundError:
            raise NotFound("The bytes of this instance are not where the catalog says.") from None

    async def stream(self, readable: Readable) -> AsyncIterator[bytes]:
        """A stored file in pieces of at most `PIECE_MAX_BYTES`; one piece is in memory at a time."""
        size_bytes = readable.location.size_bytes
        for offset in range(0, size_bytes, PIECE_MAX_BYTES):
            yield await self.read(readable, offset, min(PIECE_MAX_BYTES, size_bytes - offset))

    def pieces(self, body: bytes | memoryview) -> Pieces:
        """A body that is in memory already, in pieces; it counts as waiting until they have gone out."""
        return self.waiting.pieces(body)

    async def explicit_le(self, readable: Readable) -> bytes:
        """The data set of an instance as native Explicit VR Little Endian; whole in memory, few at a time."""
        async with self.decode_slot:
            file = await self.read(readable)
            return await self.call(lambda: self.decoder.to_explicit_le(file, recipe=readable.record.recipe or None))

    async def decoded_frame(self, readable: Readable, codestream: bytes) -> bytes:
        """The native samples of a frame that is stored as `codestream`."""
        record = readable.record
        syntax, trusted = record.stored_transfer_syntax, bool(record.recipe)
        async with self.decode_slot:
            return await self.call(lambda: self.decoder.frame(codestream, syntax, record.instance, trusted=trusted))

    def _located_again(self, readable: Readable) -> Readable:
        scope = Scope(principal=UNNAMED, tenant=readable.record.attributes.tenant)
        uid = readable.record.instance.sop_instance_uid
        for found in self.reader.instances(scope, readable.study_instance_uid, readable.series_instance_uid, uid):
            if found.record.wire_sha256 == readable.record.wire_sha256:
                return found
        raise NotFound("The bytes of this instance are not where the catalog says.")

    @property
    def waiting(self) -> WaitingBodies:
        """The large answers that wait for their clients."""
        if not self._waiting:
            self._waiting.append(WaitingBodies(self.settings.answer_memory_max_bytes))
        return self._waiting[0]

    @property
    def decode_slot(self) -> CapacityLimiter:
        """Entered by whoever holds a whole instance in memory."""
        if not self._decodes:
            self._decodes.append(CapacityLimiter(self.settings.decode_processes + 1))
        return self._decodes[0]


def uids_of(request: Request) -> dict[str, str]:
    """The UIDs in the path by level.

    Raises:
        NotFound: one of them cannot be a UID, so nothing is stored under it.
    """
    given = request.path_params
    uids: dict[str, str] = {level: given[level] for level in ("study", "series", "instance") if level in given}
    if not all(is_safe_uid(uid) for uid in uids.values()):
        raise NotFound
    return uids
