"""Appends past the page cache put the same bytes into the file as any other."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runtime.errors import OutOfSpace
from segments import aligned as aligned_module
from segments.aligned import ALIGNED_BYTES, AlignedWriter
from segments.disk import SystemDisk


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    yield descriptor


@pytest.mark.parametrize(
    "sizes",
    [(512,), (1536, 70_000, 144), (0, 512, 0), (ALIGNED_BYTES,), (512, 2 * ALIGNED_BYTES + 100, 412)],
    ids=str,
)
def test_the_bytes_are_those_of_the_parts(path: Path, descriptor: int, sizes: Sequence[int]) -> None:
    write = AlignedWriter()
    parts = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    expected = b""
    for _ in range(3):
        assert write(descriptor, parts, len(expected)) == sum(sizes)
        assert is_direct(descriptor)
        expected += b"".join(parts)
        # Read between the writes: what a reader's page cache holds must not hide what is appended next.
        assert path.read_bytes() == expected
    os.close(descriptor)


def test_what_is_not_aligned_goes_through_the_page_cache(path: Path, descriptor: int) -> None:
    write = AlignedWriter()
    expected = b""
    for part, direct in ((b"a" * 512, True), (b"b" * 100, False), (b"c" * 512, False), (b"d" * 412, False)):
        write(descriptor, [part], len(expected))
        expected += part
        assert is_direct(descriptor) is direct
    write(descriptor, [b"e" * 512], len(expected))
    assert is_direct(descriptor)
    assert path.read_bytes() == expected + b"e" * 512


@pytest.mark.parametrize("refused_at", ["flag", "write"])
def test_a_file_system_that_refuses_is_written_all_the_same(
    path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch, refused_at: str
) -> None:
    """Some say so when the flag is set, those with larger sectors when something is written."""
    refusals = []
    write_all = aligned_module.write_all

    def refuse(*_: object) -> int:
        refusals.append(refused_at)
        raise OSError(errno.EINVAL, "on purpose")

    def refuse_direct(descriptor: int, parts: Sequence[bytes], offset: int) -> int:
        return refuse() if is_direct(descriptor) else write_all(descriptor, parts, offset)

    write = AlignedWriter()
    if refused_at == "write":
        monkeypatch.setattr(aligned_module, "write_all", refuse_direct)
    else:
        monkeypatch.setattr(aligned_module, "_set_direct", lambda _, wanted: refuse() if wanted else None)
    for number in range(3):
        assert write(descriptor, [b"a" * 1024, b"b" * 512], number * 1536) == 1536
    assert path.read_bytes() == (b"a" * 1024 + b"b" * 512) * 3
    assert not is_direct(descriptor)
    assert len(refusals) == 1


def test_other_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full(*_: object) -> int:
        tried.append("write")
        raise OSError(errno.ENOSPC, "on purpose")

    file = SystemDisk().create_uncached(tmp_path / "file")
    monkeypatch.setattr(aligned_module.os, "pwritev", full)
    with pytest.raises(OutOfSpace):
        file.append([b"a" * 512])
    assert tried == ["write"]
    file.close()
