"""A segment is written once and read by index or by scan; a streamed one appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.errors import OutOfSpace, Retryable
from segments import disk as disk_module
from segments.checksum import crc32c, crc32c_hex
from segments.disk import SystemDisk, is_abandoned
from segments.reader import NotSealed, SegmentDamaged, read_body, read_index, scan
from segments.recover import recover
from segments.streamed import HEADER_BYTES, StreamedSegment
from segments.sweep import sweep_parts
from segments.writer import SegmentWriter

PROVENANCE = {"ce_id": "0190", "ce_time": "2026-03-01T08:15:00.000000Z"}


def index_of(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return read_index(lambda offset, size: content[offset : offset + size], len(content))


def bodies(path: Path) -> dict[str, bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return {member.name: read_body(descriptor, member) for member in scan(path)}
    finally:
        os.close(descriptor)


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(SystemDisk(), tmp_path / "0190-aa.tar")


def test_crc32c_is_castagnolis() -> None:
    # RFC 3720 B.4: 32 zeros, and the bytes 0 to 31.
    assert crc32c_hex([bytes(32)]) == "8a9136aa"
    assert crc32c_hex([bytes(range(16)), bytearray(range(16, 32)), memoryview(b"")]) == "46dd794e"
    assert crc32c([memoryview(bytearray(b"def"))], crc32c([b"abc"])) == crc32c([b"abcdef"])


def test_members_lie_where_the_spans_say(writer: SegmentWriter) -> None:
    spans = [writer.append(f"m{size}", PROVENANCE, [b"a" * size, bytearray(b"b")]) for size in (0, 511, 512, 9000)]
    writer.sync()
    writer.close()

    content = writer.path.read_bytes()
    assert [content[s.offset : s.offset + s.size_bytes] for s in spans] == [
        b"a" * n + b"b" for n in (0, 511, 512, 9000)
    ]
    assert [(m.header_offset, m.offset, m.size_bytes, m.next_offset) for m in scan(writer.path)] == [
        (s.header_offset, s.offset, s.size_bytes, s.next_offset) for s in spans
    ]
    assert len(content) == spans[-1].next_offset


def test_a_member_of_many_parts_needs_no_join(writer: SegmentWriter) -> None:
    parts = [bytes([n % 251]) * (n % 7) for n in range(5000)]  # beyond the system's limit of buffers in one call
    writer.append("m", PROVENANCE, parts)
    writer.close()

    assert bodies(writer.path) == {"m": b"".join(parts)}


@pytest.mark.parametrize("lines", [[], [b"{}"], [b'{"n":%d}' % n for n in range(1000)]])
def test_the_index_is_found_from_the_end(writer: SegmentWriter, lines: Sequence[bytes]) -> None:
    writer.append("m", PROVENANCE, [b"abc"])
    writer.seal(lines)
    writer.close()

    assert index_of(writer.path) == lines
    assert bodies(writer.path) == {"m": b"abc"}
    assert recover(writer.path).torn == []


def test_a_segment_without_trailer_says_so(writer: SegmentWriter) -> None:
    writer.append("m", PROVENANCE, [b"abc"])
    writer.close()
    with pytest.raises(NotSealed):
        index_of(writer.path)


def test_a_seal_cut_anywhere_is_no_seal(writer: SegmentWriter) -> None:
    writer.append("m", PROVENANCE, [b"abc"])
    writer.seal([b"{}"])
    writer.close()
    content = writer.path.read_bytes()
    for size in range(len(content)):
        with pytest.raises(SegmentDamaged):
            read_index(lambda offset, n, size=size: content[:size][offset : offset + n], size)


def test_a_damaged_index_is_noticed(writer: SegmentWriter) -> None:
    writer.seal([b'{"wanted":1}'])
    writer.close()
    content = writer.path.read_bytes().replace(b"wanted", b"wonted")
    with pytest.raises(SegmentDamaged):
        read_index(lambda offset, n: content[offset : offset + n], len(content))


def test_an_existing_segment_is_never_opened_for_writing(writer: SegmentWriter) -> None:
    with pytest.raises(FileExistsError):
        SegmentWriter(SystemDisk(), writer.path)
    writer.abandon()
    assert not writer.path.exists()


def test_a_file_that_failed_once_is_written_and_synced_no_more(
    writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    writer.append("m", PROVENANCE, [b"abc"])
    with monkeypatch.context() as patched:
        patched.setattr(disk_module.os, "fdatasync", fails)
        with pytest.raises(Retryable, match="EIO"):
            writer.sync()
    with pytest.raises(Retryable, match="abandoned"):
        writer.sync()
    with pytest.raises(Retryable, match="abandoned"):
        writer.append("n", PROVENANCE, [b"abc"])
    writer.close()


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, Retryable)]
)
def test_the_systems_errors_say_what_to_do_next(code: int, kind: type[Retryable]) -> None:
    with pytest.raises(Retryable) as raised, disk_module.mapped_errors("append"):
        raise OSError(code, "text that may quote a path")
    assert type(raised.value) is kind
    assert "path" not in str(raised.value)


def test_a_lock_tells_the_living_from_the_dead(writer: SegmentWriter) -> None:
    descriptor = os.open(writer.path, os.O_RDONLY)
    try:
        assert not is_abandoned(descriptor)
        writer.close()
        assert is_abandoned(descriptor)
    finally:
        os.close(descriptor)


def test_state_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / "state.json.part").write_bytes(b"left by a crash")
    for content in (b"one", b"two"):
        SystemDisk().replace(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_streamed_segment_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "default/2026/03/01/0190-bb.tar"
    segment = StreamedSegment(SystemDisk(), path)
    chunks = [os.urandom(n) for n in (1, 511, 100_000, 3)]
    for chunk in chunks:
        segment.write(bytearray(chunk))
        assert not path.exists()
    known_before = (segment.size_bytes, segment.sha256, segment.crc32c)
    member = segment.finish("default/a.dcm", PROVENANCE)

    body = b"".join(chunks)
    assert known_before == (member.size_bytes, member.sha256, member.crc32c)
    assert member.sha256 == hashlib.sha256(body).hexdigest()
    assert member.offset == HEADER_BYTES
    assert bodies(path) == {"default/a.dcm": body}
    assert index_of(path) == []
    (scanned,) = scan(path)
    assert scanned.provenance == {
        **PROVENANCE, "sha256": member.sha256, "crc32c": member.crc32c, "segment": "0190-bb"
    }  # fmt: skip
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stderr == ""


def test_an_aborted_stream_leaves_nothing(tmp_path: Path) -> None:
    segment = StreamedSegment(SystemDisk(), tmp_path / "0190-bb.tar")
    segment.write(b"abc")
    segment.abort()
    segment.abort()
    assert list(tmp_path.iterdir()) == []


def test_creating_and_sweeping_at_once_never_lose_a_file(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            sweep_parts(SystemDisk(), tmp_path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(300):
            file = SystemDisk().create(tmp_path / f"{number}.part")
            SystemDisk().rename(tmp_path / f"{number}.part", tmp_path / f"{number}.tar")
            file.close()
    finally:
        stop.set()
        sweeper.join()
    assert len(list(tmp_path.glob("*.tar"))) == 300


def test_abort_after_finish_changes_nothing(tmp_path: Path) -> None:
    segment = StreamedSegment(SystemDisk(), tmp_path / "0190-bb.tar")
    segment.finish("a", {})
    segment.abort()
    assert list(scan(segment.path))


def test_a_stream_that_cannot_be_synced_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    segment = StreamedSegment(SystemDisk(), tmp_path / "0190-bb.tar")
    monkeypatch.setattr(disk_module.os, "fdatasync", full)
    with pytest.raises(OutOfSpace):
        segment.finish("a", {})
    assert list(tmp_path.iterdir()) == []


def test_a_stream_whose_folder_cannot_be_synced_leaves_nothing(tmp_path: Path) -> None:
    class Disk(SystemDisk):
        is_broken = False

        def sync_folder(self, path: Path) -> None:
            if self.is_broken:
                raise Retryable("cannot sync folder: EIO")

    disk = Disk()
    segment = StreamedSegment(disk, tmp_path / "0190-bb.tar")
    disk.is_broken = True
    with pytest.raises(Retryable):
        segment.finish("a", {})
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_the_orphans_and_leaves_the_living(tmp_path: Path) -> None:
    living = StreamedSegment(SystemDisk(), tmp_path / "a/0190-bb.tar")
    (tmp_path / "a/0190-cc.tar.part").write_bytes(b"of a process that died")

    assert sweep_parts(SystemDisk(), tmp_path) == 1

    living.write(b"abc")
    living.finish("m", {})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0190-bb.tar"]
