"""Claim check: an instance too large for a message goes straight into a one-member segment of the archive.

Where the archive is, is behind `archive.segment_store.ClaimCheck`: a file here, or an upload to an object store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from archive.layout import instance_key, path_of
from archive.segment_store import ClaimCheck, OpenClaimCheck
from runtime.clock import Clock
from runtime.errors import OutOfSpace, Rejected, Retryable
from schemas.identifiers import SegmentKey, is_safe_uid
from schemas.message import MessageAttributes
from schemas.reasons import RejectReason
from segments.disk import Buffer, Disk
from segments.streamed import StreamedMember, StreamedSegment


class LargeInstance:
    """A segment under its final key, being written. Nobody sees it before `finish`, nothing is left by `abort`."""

    def __init__(self, claim_check: ClaimCheck) -> None:
        self.key = claim_check.key
        self._segment = claim_check

    def write(self, data: Buffer) -> None:
        """Append to the Part-10 file.

        Raises:
            OutOfSpace, Retryable: call `abort`.
        """
        self._segment.write(data)

    def finish(self, attributes: MessageAttributes) -> MessageAttributes:
        """Make the segment durable; gives the attributes that name its member.

        Raises:
            Rejected: DISK_LOW or LOG_UNAVAILABLE; nothing is left.
        """
        finished = replace(attributes, size_bytes=self._segment.size_bytes, crc32c=self._segment.crc32c)
        name = _member_name(attributes, self._segment.sha256)
        try:
            member = self._segment.finish(name, finished.to_headers())
        except OutOfSpace as error:
            raise Rejected(RejectReason.DISK_LOW, "the disk is full") from error
        except Retryable as error:
            raise Rejected(RejectReason.LOG_UNAVAILABLE, "the archive cannot be written") from error
        return replace(finished, data_ref=self.key, data_offset=member.offset, sha256=member.sha256)

    def abort(self) -> None:
        """Leave nothing of an unfinished segment."""
        self._segment.abort()

    def withdraw(self) -> None:
        """Remove the finished segment: the log certainly holds no message that names it."""
        self._segment.withdraw()


class LocalClaimCheck:
    """`archive.segment_store.ClaimCheck` in the archive's folder."""

    def __init__(self, disk: Disk, archive_dir: Path, tenant: str, clock: Clock) -> None:
        """Begin it. Raises OutOfSpace, Retryable."""
        self._key = instance_key(tenant, clock.new_id())
        self._disk = disk
        self._path = path_of(archive_dir, self._key)
        self._segment = StreamedSegment(disk, self._path)

    @property
    def key(self) -> SegmentKey:
        return self._key

    @property
    def size_bytes(self) -> int:
        return self._segment.size_bytes

    @property
    def sha256(self) -> str:
        return self._segment.sha256

    @property
    def crc32c(self) -> str:
        return self._segment.crc32c

    def write(self, chunk: Buffer) -> None:
        """See `ClaimCheck.write`."""
        self._segment.write(chunk)

    def finish(self, name: str, provenance: Mapping[str, str]) -> StreamedMember:
        """See `ClaimCheck.finish`."""
        return self._segment.finish(name, provenance)

    def abort(self) -> None:
        """See `ClaimCheck.abort`."""
        self._segment.abort()

    def withdraw(self) -> None:
        """See `ClaimCheck.withdraw`."""
        self._disk.remove(self._path)


def local_claim_checks(disk: Disk, archive_dir: Path, clock: Clock) -> OpenClaimCheck:
    """Claim checks in a folder."""
    return lambda tenant: LocalClaimCheck(disk, archive_dir, tenant, clock)


def _member_name(attributes: MessageAttributes, sha256: str) -> str:
    """As the archive names members, but for the series, which the head does not tell."""
    uids = (attributes.study_uid, attributes.sop_instance_uid)
    if not all(map(is_safe_uid, uids)):
        return f"unnamed/{attributes.id}"
    return f"{attributes.tenant}/{attributes.study_uid}/{attributes.sop_instance_uid}.{sha256[:16]}.dcm"
