"""Data sets no modality writes: small ones that claim much."""

from __future__ import annotations

import struct
import zlib

from tests.datasets import dataset_bytes, mr_dataset

SEQUENCE = 0x0008_1115
_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
_ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR LE."""
    group, number = tag >> 16, tag & 0xFFFF
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def nested(depth: int, *, defined: bool = False, implicit: bool = False) -> bytes:
    """`depth` sequences, one in the other."""
    content = b""
    for _ in range(depth):
        if defined:
            content = struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
            content = _sequence_header(len(content), implicit) + content
        else:
            content = _sequence_header(0xFFFFFFFF, implicit) + _ITEM + content + _ITEM_END + _SEQUENCE_END
    return content


def _sequence_header(length: int, implicit: bool) -> bytes:
    if implicit:
        return struct.pack("<HHL", SEQUENCE >> 16, SEQUENCE & 0xFFFF, length)
    return struct.pack("<HH2sHL", SEQUENCE >> 16, SEQUENCE & 0xFFFF, b"SQ", 0, length)


def with_nested(depth: int, *, defined: bool = False) -> bytes:
    """An ordinary instance that holds such sequences before its Study Instance UID."""
    plain = dataset_bytes(mr_dataset(rows=4, columns=4))
    at = plain.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    return plain[:at] + nested(depth, defined=defined) + plain[at:]


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def deflate_bomb(size_bytes: int = 64 * 1024 * 1024) -> bytes:
    """An instance whose Pixel Data is nothing but zeros, deflated a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = dataset_bytes(mr_dataset(rows=4, columns=4))[:-44]
    stream = packer.compress(head + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size_bytes))
    zeros = bytes(1024 * 1024)
    for _ in range(size_bytes // len(zeros)):
        stream += packer.compress(zeros)
    return stream + packer.flush()
