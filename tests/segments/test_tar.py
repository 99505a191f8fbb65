"""A member is read back as it was written, by us, by Python's tarfile and by GNU tar; damage never goes unnoticed."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments.disk import SystemDisk
from segments.tar import BLOCK, SegmentDamaged, member_header, padding, read_member, verify_body
from segments.writer import SegmentWriter

NAME = "default/1.2.826.0.1.3680043.10.1471.1/1.2.826.0.1.3680043.10.1471.1.1/" + "1." * 30 + "9.0123456789abcdef.dcm"
PROVENANCE = {"ce_id": "0190", "ce_time": "2026-03-01T08:15:00.000000Z", "ce_callingae": "Ä=\n%", "recipe": "{}"}

keys = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=30).filter(lambda key: key != "check")
names = st.lists(st.text(min_size=1, max_size=60).filter(lambda part: not {"/", "\0"} & set(part) and part != ".."))


@given(
    name=names.map("/".join).filter(lambda name: name and not name.startswith("/")),
    size_bytes=st.one_of(st.integers(0, 5000), st.integers(8 * 1024**3 - 2, 2**60)),
    provenance=st.dictionaries(keys, st.text(min_size=1), max_size=8),
    multiple_of=st.sampled_from([BLOCK, 4096]),
)
def test_a_header_says_what_was_written(
    name: str, size_bytes: int, provenance: dict[str, str], multiple_of: int
) -> None:
    header = member_header(name=name, size_bytes=size_bytes, provenance=provenance, multiple_of=multiple_of)

    member = read_member(lambda offset, size: header[offset : offset + size], 0, 2**62)

    assert member is not None
    assert (member.name, member.size_bytes, member.provenance) == (name, size_bytes, provenance)
    assert (member.offset, member.next_offset % multiple_of) == (len(header), 0)
    assert header == member_header(name=name, size_bytes=size_bytes, provenance=provenance, multiple_of=multiple_of)
    shortest = member_header(name=name, size_bytes=size_bytes, provenance=provenance)
    assert 0 <= len(header) - len(shortest) < multiple_of


@pytest.mark.parametrize("used", range(0, 1100, 7))
def test_a_reserved_header_has_exactly_its_size(used: int) -> None:
    header = member_header(name="a", size_bytes=1, provenance={"k": "v" * (used + 1)}, header_size_bytes=4096)

    member = read_member(lambda offset, size: header[offset : offset + size].ljust(size, b"\0"), 0, 8192)

    assert len(header) == 4096
    assert member is not None
    assert member.provenance == {"k": "v" * (used + 1)}


def test_what_does_not_fit_the_reserved_header_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        member_header(name="a", size_bytes=1, provenance={"k": "v" * 3072}, header_size_bytes=4096)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../b", "a\0b"])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        member_header(name=name, size_bytes=0, provenance={})


@pytest.mark.parametrize("key", ["", "a=b", "é", "a\nb", "check"])
def test_keys_that_tar_could_not_keep_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        member_header(name="a", size_bytes=0, provenance={key: "v"})


def test_a_byte_changed_in_a_header_is_noticed_or_changes_nothing() -> None:
    header = member_header(name=NAME, size_bytes=0, provenance=PROVENANCE)
    whole = read_member(lambda offset, size: header[offset : offset + size], 0, len(header))
    unnoticed = 0
    for at in range(len(header)):
        damaged = bytearray(header)
        damaged[at] ^= 0x01
        try:
            member = read_member(lambda offset, size, d=damaged: bytes(d[offset : offset + size]), 0, len(header))
        except SegmentDamaged:
            continue
        unnoticed += 1
        assert member == whole, at
    # Only zeros that fill the last block of records, and what no reader looks at.
    assert unnoticed < BLOCK


def test_a_body_that_differs_is_noticed() -> None:
    header = member_header(name="a", size_bytes=3, provenance={"crc32c": "364b3fb7"})
    member = read_member(lambda offset, size: header[offset : offset + size], 0, len(header) + BLOCK)
    assert member is not None

    verify_body(member, b"abc")

    for other in (b"abd", b"ab", b"abcd", b""):
        with pytest.raises(SegmentDamaged):
            verify_body(member, other)


@given(st.binary(min_size=1, max_size=2048))
def test_rubbish_is_no_member(rubbish: bytes) -> None:
    try:
        member = read_member(lambda offset, size: rubbish[offset : offset + size], 0, len(rubbish))
    except SegmentDamaged:
        return
    assert member is None
    assert not any(rubbish[:BLOCK])


def test_padding_fills_the_block() -> None:
    assert [len(padding(size)) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A sealed segment with bodies of awkward sizes."""
    writer = SegmentWriter(SystemDisk(), tmp_path / "0190-aa.tar")
    for size in (0, 1, 511, 512, 513, 70_000):
        writer.append(f"{NAME}{size}", PROVENANCE, [b"x" * (size // 2), bytearray(b"y" * (size - size // 2))])
    writer.seal([b'{"line":1}', b'{"line":2}'])
    writer.sync()
    writer.close()
    return writer.path


def test_gnu_tar_lists_and_extracts_in_silence(sealed: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    listed = subprocess.run(["tar", "-tvf", sealed], capture_output=True, text=True, check=True)
    extracted = subprocess.run(
        ["tar", "--xattrs", "-xf", sealed, "-C", target], capture_output=True, text=True, check=True
    )

    assert (listed.stderr, extracted.stderr) == ("", "")
    assert len(listed.stdout.splitlines()) == 8
    assert "2026-03-01 " in listed.stdout
    for size in (0, 1, 511, 512, 513, 70_000):
        path = target / f"{NAME}{size}"
        assert path.read_bytes() == b"x" * (size // 2) + b"y" * (size - size // 2)
        assert path.stat().st_mode & 0o077 == 0
    assert (target / ".sansfilm/0190-aa.index").read_bytes() == b'{"line":1}\n{"line":2}\n'


def test_gnu_tar_gives_the_provenance_back(sealed: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.sansfilm.probe", b"1")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")
    subprocess.run(["tar", "--xattrs", "-xf", sealed, "-C", tmp_path], check=True)

    path = tmp_path / f"{NAME}513"
    found = {name.removeprefix("user.sansfilm."): os.getxattr(path, name).decode() for name in os.listxattr(path)}

    assert found.items() >= PROVENANCE.items()
    assert found["segment"] == "0190-aa"


def test_python_reads_it_too(sealed: Path) -> None:
    with tarfile.open(sealed) as archive:
        members = archive.getmembers()
        first = members[3]
        body = archive.extractfile(first)

        assert len(members) == 8
        assert first.name == f"{NAME}512"
        assert first.pax_headers["SCHILY.xattr.user.sansfilm.ce_callingae"] == PROVENANCE["ce_callingae"]
        assert body is not None
        assert body.read() == b"x" * 256 + b"y" * 256


def test_sizes_beyond_eight_gibibytes_are_read_by_gnu_tar_and_python(tmp_path: Path) -> None:
    size_bytes = 9 * 1024**3
    path = tmp_path / "large.tar"
    header = member_header(name="large.dcm", size_bytes=size_bytes, provenance=PROVENANCE)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size_bytes + 2 * BLOCK)  # a hole: no disk space is used

    listed = subprocess.run(["tar", "-tvf", path], capture_output=True, text=True, check=True)
    with tarfile.open(path) as archive:
        assert archive.getmembers()[0].size == size_bytes
    assert listed.stderr == ""
    assert str(size_bytes) in listed.stdout
