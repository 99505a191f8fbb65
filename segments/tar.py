"""One member of a segment: a pax header, a ustar header and a body (POSIX.1-2017 pax, "pax Interchange Format").

Encoding is deterministic: the same name, size and provenance give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from runtime.errors import SansfilmError
from segments.checksum import crc32c

BLOCK: Final = 512
#: Most bytes of pax records that a member may have.
PAX_BYTES_MAX: Final = 1024 * 1024
#: Members of the format itself live here; they are no instances.
OWN_FOLDER: Final = ".sansfilm/"

#: Keys of provenance that the format itself writes; see the package's text.
CRC32C: Final = "crc32c"
SEGMENT: Final = "segment"
CHECK: Final = "check"

Buffer = bytes | bytearray | memoryview
ReadRange = Callable[[int, int], bytes]
"""Reads `size` bytes at `offset`; fewer only at the end of the file."""

_XATTR = b"SCHILY.xattr.user.sansfilm."
_USTAR_SIZE_MAX = 8 * 1024**3 - 1
_READ_AHEAD = 4096
#: The check record's length is fixed: digits, space, key, "=", eight hex digits, line feed.
_CHECK_BYTES = 2 + 1 + len(_XATTR) + len(CHECK) + 1 + 8 + 1
_CHECK_PREFIX = b"%d %s%s=" % (_CHECK_BYTES, _XATTR, CHECK.encode())
_ZEROS = bytes(BLOCK)
_MODE_OWNER = b"0000600\0" + b"0000000\0" * 2
#: Everything behind the type: link name, magic, version, names, device numbers, prefix.
_USTAR_END = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(155 + 12)
_USTAR_END_SUM = sum(_USTAR_END)
_MAGIC_AT, _MAGIC = 257, b"ustar\x0000"
_TYPE_AT, _PAX, _FILE = 156, b"x", b"0"


class SegmentDamaged(SansfilmError):
    """Bytes of a segment are not what was written. Nothing is lost by trying elsewhere: `recover` skips to what is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member as its header says. The body is not verified by reading the header."""

    name: str
    #: Pax records without their prefix, ``crc32c`` and ``segment`` included, ``check`` verified and left out.
    provenance: Mapping[str, str]
    header_offset: int
    #: Where the body begins.
    offset: int
    size_bytes: int

    @property
    def next_offset(self) -> int:
        """Where the next member begins."""
        return self.offset + self.size_bytes + -self.size_bytes % BLOCK

    @property
    def is_own(self) -> bool:
        """Whether this is the index or the trailer."""
        return self.name.startswith(OWN_FOLDER)


def member_header(
    *,
    name: str,
    size_bytes: int,
    provenance: Mapping[str, str],
    header_size_bytes: int | None = None,
    multiple_of: int = BLOCK,
) -> bytes:
    """The header blocks of a member: what stands in the file before its body.

    Args:
        name: A relative path without ``..``.
        size_bytes: Size of the body.
        provenance: Records by key (letters, digits, ``_``, ``.``, ``-``); empty values are left out. ``ce_time``, if
            given, becomes the file's time.
        header_size_bytes: Give exactly this size (a multiple of 512), for a header that is written last.
        multiple_of: Otherwise make the header so long that the whole member is a multiple of this (of 512 itself).

    Raises:
        ValueError: a bug of the caller: an unsafe name, a key with ``=``, or records that do not fit.
    """
    encoded_name = _checked_name(name)
    records = [_record(b"path", encoded_name)] if len(encoded_name) > 100 or not name.isascii() else []
    if size_bytes > _USTAR_SIZE_MAX:
        records.append(_record(b"size", b"%d" % size_bytes))
    records += [_record(_key(key), _encoded(value)) for key, value in provenance.items() if value]
    used_bytes = sum(map(len, records)) + _CHECK_BYTES
    if header_size_bytes is None:
        header_size_bytes = 2 * BLOCK + used_bytes + -used_bytes % BLOCK
        header_size_bytes += -(header_size_bytes + size_bytes + -size_bytes % BLOCK) % multiple_of
    records.append(_comment(used_bytes, header_size_bytes))
    body = b"".join(records)
    time_s = _time_s(provenance.get("ce_time", ""))
    ustar = _ustar(encoded_name[-100:], size_bytes if size_bytes <= _USTAR_SIZE_MAX else 0, time_s, _FILE)
    body += b"%s%08x\n" % (_CHECK_PREFIX, crc32c([body, ustar]))
    if len(body) > PAX_BYTES_MAX:
        raise ValueError("the provenance is too large")
    pax = _ustar(b"PaxHeaders/" + encoded_name.rpartition(b"/")[2][-80:], len(body), time_s, _PAX)
    return b"".join((pax, body, padding(len(body)), ustar))


def padding(size_bytes: int) -> bytes:
    """The zeros between a body of this size and the next block."""
    return _ZEROS[: -size_bytes % BLOCK]


def read_member(read: ReadRange, offset: int, end: int) -> Member | None:
    """The member whose header begins at `offset`; None where the archive ends: at `end` or at a block of zeros.

    Raises:
        SegmentDamaged: no whole member lies between here and `end`, or its header does not check.
    """
    if offset >= end:
        return None
    ahead = read(offset, min(_READ_AHEAD, end - offset))
    kind, _, pax_bytes = _parse_ustar(ahead)
    if kind is None:
        return None
    if kind != _PAX or pax_bytes > PAX_BYTES_MAX:
        raise SegmentDamaged(f"no member of ours at offset {offset}")
    header_bytes = BLOCK + pax_bytes + -pax_bytes % BLOCK + BLOCK
    if header_bytes > len(ahead):
        ahead = read(offset, min(header_bytes, end - offset))
        if len(ahead) < header_bytes:
            raise SegmentDamaged(f"header cut short at offset {offset}")
    body, ustar = ahead[BLOCK : BLOCK + pax_bytes], ahead[header_bytes - BLOCK : header_bytes]
    member = _member(_checked_records(body, ustar, offset), ustar, offset, offset + header_bytes)
    if member.next_offset > end:
        raise SegmentDamaged(f"member cut short at offset {offset}")
    return member


def verify_body(member: Member, body: Buffer) -> None:
    """Compare a body with the CRC32C of its header.

    Raises:
        SegmentDamaged: they differ.
    """
    if len(body) != member.size_bytes or f"{crc32c([body]):08x}" != member.provenance.get(CRC32C):
        raise SegmentDamaged(f"body does not match its CRC32C at offset {member.offset}")


def _checked_name(name: str) -> bytes:
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ValueError("not a name for a member")
    return _encoded(name)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    if not key or "=" in key or not key.isascii() or not key.isprintable() or key == CHECK:
        raise ValueError("not a key for provenance")
    return _XATTR + key.encode()


@lru_cache(maxsize=256)
def _time_s(received: str) -> int:
    """Seconds since 1970 of an RFC 3339 time, never negative; without one, a constant."""
    try:
        return max(0, int(datetime.fromisoformat(received).timestamp()))
    except ValueError:
        return 0


def _record(key: bytes, value: bytes) -> bytes:
    """``<length> <key>=<value>\\n``, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    total = rest + len(str(rest))
    total = rest + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)


def _comment(used_bytes: int, header_size_bytes: int) -> bytes:
    """A comment record that makes the header exactly as large as was reserved for it."""
    room = header_size_bytes - 2 * BLOCK
    if header_size_bytes % BLOCK or used_bytes > room:
        raise ValueError("the provenance does not fit the header reserved for it")
    missing = room - used_bytes
    if missing < BLOCK:  # the last block's zeros do it
        return b""
    return b"%d comment=%s\n" % (missing, b"." * (missing - len(str(missing)) - len(" comment=\n")))


def _ustar(name: bytes, size_bytes: int, time_s: int, kind: bytes) -> bytes:
    start = b"%s%s%011o\0%011o\0" % (name.ljust(100, b"\0"), _MODE_OWNER, size_bytes, time_s)
    checksum = sum(start) + 8 * 0x20 + kind[0] + _USTAR_END_SUM
    return b"%s%06o\0 %s%s" % (start, checksum, kind, _USTAR_END)


def _parse_ustar(block: bytes) -> tuple[bytes | None, bytes, int]:
    """Type, name and size of a header block; the type is None for a block of zeros.

    Raises:
        SegmentDamaged: no header.
    """
    if len(block) < BLOCK:
        raise SegmentDamaged("header cut short")
    if block[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        if block[:BLOCK] == _ZEROS:
            return None, b"", 0
        raise SegmentDamaged("no header")
    try:
        size_bytes, checksum = int(block[124:135], 8), int(block[148:154], 8)
    except ValueError as error:
        raise SegmentDamaged("header unreadable") from error
    if sum(block[:148]) + sum(block[156:BLOCK]) + 8 * 0x20 != checksum:
        raise SegmentDamaged("header does not check")
    return block[_TYPE_AT : _TYPE_AT + 1], block[:100].rstrip(b"\0"), size_bytes


def _checked_records(body: bytes, ustar: bytes, offset: int) -> dict[str, str]:
    """The records of a pax header whose check holds."""
    checked, said = body[:-_CHECK_BYTES], body[-_CHECK_BYTES:]
    if said != b"%s%08x\n" % (_CHECK_PREFIX, crc32c([checked, ustar])):
        raise SegmentDamaged(f"header does not check at offset {offset}")
    try:
        return _records(checked)
    except (ValueError, IndexError) as error:
        raise SegmentDamaged(f"records unreadable at offset {offset}") from error


def _records(body: bytes) -> dict[str, str]:
    found = {}
    at = 0
    while at < len(body):
        space = body.index(b" ", at, at + 10)
        after = at + int(body[at:space])
        key, _, value = body[space + 1 : after - 1].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        if after <= at:
            raise ValueError("a record's length is wrong")
        at = after
    return found


def _member(records: dict[str, str], ustar: bytes, header_offset: int, offset: int) -> Member:
    kind, name, size_bytes = _parse_ustar(ustar)
    if kind != _FILE:
        raise SegmentDamaged(f"no member of ours at offset {header_offset}")
    prefix = _XATTR.decode()
    return Member(
        name=records.get("path") or name.decode("utf-8", "surrogateescape"),
        provenance={key[len(prefix) :]: value for key, value in records.items() if key.startswith(prefix)},
        header_offset=header_offset,
        offset=offset,
        size_bytes=int(records.get("size", size_bytes)),
    )
