"""Recovery delivers what verifies, names what does not, and tells a torn tail from corruption in the middle."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from runtime.metrics import LOG_TORN
from segments.disk import SystemDisk
from segments.reader import read_body
from segments.recover import Recovery, TornKind, TornPiece, keep_torn, recover
from segments.writer import MemberSpan, SegmentWriter

NAME = "0190-aa.tar"
BODIES = (b"first" * 50, b"", b"third" * 150)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def script(folder: Path, contents: Sequence[bytes] = BODIES) -> tuple[bytes, list[MemberSpan]]:
    """The fixed script: three members, never sealed."""
    writer = SegmentWriter(SystemDisk(), folder / NAME)
    spans = [writer.append(f"m{n}", {"ce_id": str(n)}, [content]) for n, content in enumerate(contents)]
    writer.close()
    return writer.path.read_bytes(), spans


def recovered(folder: Path, content: bytes) -> Recovery:
    (folder / NAME).write_bytes(content)
    return recover(folder / NAME)


def names(recovery: Recovery) -> list[str]:
    return [member.name for member in recovery.members]


def test_torn_at_every_byte_each_whole_member_is_delivered(folder: Path) -> None:
    content, spans = script(folder)
    for size in range(len(content) + 1):
        recovery = recovered(folder, content[:size])
        whole = [f"m{n}" for n, span in enumerate(spans) if span.next_offset <= size]
        end = spans[len(whole) - 1].next_offset if whole else 0
        assert names(recovery) == whole, size
        assert {piece.kind for piece in recovery.torn} <= {TornKind.TAIL}, size
        assert [piece.offset for piece in recovery.torn] == ([end] if content[end:size].strip(b"\0") else []), size


def test_torn_at_every_byte_with_zeros_or_old_blocks_behind(folder: Path) -> None:
    content, spans = script(folder)
    stale = (content[512:1024] + os.urandom(512)) * (len(content) // 1024 + 1)
    for size in range(0, len(content), 13):
        for behind in (bytes(len(content) - size), stale[: len(content) - size]):
            recovery = recovered(folder, content[:size] + behind)
            certain = [f"m{n}" for n, span in enumerate(spans) if span.next_offset <= size]
            assert names(recovery)[: len(certain)] == certain
            # A member of which only zeros were lost is whole.
            for member in recovery.members:
                assert (folder / NAME).read_bytes()[member.offset :][: member.size_bytes] == BODIES[int(member.name[1])]


def test_one_bad_byte_anywhere_costs_one_member_at_most(folder: Path) -> None:
    content, spans = script(folder)
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        recovery = recovered(folder, bytes(damaged))
        hit = next(n for n, span in enumerate(spans) if at < span.next_offset)
        lost = {f"m{n}" for n in range(3)} - set(names(recovery))
        assert lost <= {f"m{hit}"}
        if lost:
            (piece,) = recovery.torn
            assert piece.offset == spans[hit].header_offset
            assert piece.kind is (TornKind.TAIL if hit == 2 else TornKind.CORRUPT)


def test_a_hole_in_the_middle_is_corruption_not_a_tail(folder: Path) -> None:
    content, spans = script(folder)
    hole = spans[1].header_offset
    recovery = recovered(folder, content[: hole - 700] + os.urandom(700) + content[hole:])

    assert names(recovery) == ["m1", "m2"]
    assert [piece.kind for piece in recovery.torn] == [TornKind.CORRUPT]


def test_a_tar_inside_an_instance_is_never_taken_for_members(folder: Path) -> None:
    (folder / "other").mkdir()
    writer = SegmentWriter(SystemDisk(), folder / "other" / "0190-zz.tar")
    writer.append("forged", {}, [b"forged" * 100])
    writer.close()
    foreign = io.BytesIO()
    with tarfile.open(fileobj=foreign, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("forged2"))
    content, spans = script(folder, (writer.path.read_bytes() + foreign.getvalue(), b"after"))
    damaged = bytearray(content)
    damaged[spans[0].offset - 1] ^= 0xFF

    recovery = recovered(folder, bytes(damaged))

    assert names(recovery) == ["m1"]


def test_an_empty_file_and_rubbish_hold_nothing(folder: Path) -> None:
    assert recovered(folder, b"") == Recovery(members=[], torn=[])
    assert recovered(folder, bytes(4096)) == Recovery(members=[], torn=[])
    rubbish = recovered(folder, b"\x01" * 5000)
    assert rubbish == Recovery(members=[], torn=[TornPiece(offset=0, size_bytes=5000, kind=TornKind.TAIL)])


def test_what_is_torn_is_kept_once_with_an_alarm(folder: Path) -> None:
    content, spans = script(folder)
    cut = spans[2].header_offset + 1000
    recovery = recovered(folder, content[:cut])
    before = LOG_TORN.labels(kind="tail")._value.get()

    with capture_logs() as events:
        kept = [keep_torn(SystemDisk(), folder / NAME, piece) for piece in recovery.torn * 2]

    assert kept[0] == kept[1]
    assert content[spans[2].header_offset : cut].startswith(kept[0].read_bytes())
    assert [event["event"] for event in events] == ["segment_torn"]
    assert LOG_TORN.labels(kind="tail")._value.get() == before + 1
    assert (folder / NAME).read_bytes() == content[:cut]


def test_recovered_members_are_read_like_any(folder: Path) -> None:
    content, _ = script(folder)
    descriptor = os.open(folder / NAME, os.O_RDONLY)
    try:
        assert tuple(read_body(descriptor, member) for member in recovered(folder, content).members) == BODIES
    finally:
        os.close(descriptor)
