"""The script in the archive's root restores originals with nothing of this software on its path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from archive.restore_script import place
from instances.part10 import split
from instances.syntax import HTJ2K_LOSSLESS_RPCL
from segments.disk import SystemDisk
from segments.streamed import StreamedSegment
from tests.archive.house import House
from tests.archive.samples import member, unfileable
from tests.datasets import dataset_bytes, mr_dataset, part10


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


def run(house: House, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The script as written into the archive, run by a Python that cannot import this repository."""
    script = house.folder / "archive" / "restore.py"
    segments = sorted(str(path) for path in (house.folder / "archive" / "segments").rglob("*.tar"))
    return subprocess.run(
        [sys.executable, "-I", str(script), *arguments, *segments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder or house.folder,
    )


def test_originals_come_back_byte_for_byte(house: House, tmp_path: Path) -> None:
    given = {
        "transcoded": (mr_dataset(1), "1.2.840.10008.1.2.1"),
        "multi-frame": (mr_dataset(2, frames=4), "1.2.840.10008.1.2.1"),
        "8 bits, odd": (mr_dataset(3, bits=8, rows=33, columns=65), "1.2.840.10008.1.2.1"),
        "signed": (mr_dataset(4, PixelRepresentation=1), "1.2.840.10008.1.2.1"),
        "implicit": (mr_dataset(5), ImplicitVRLittleEndian),
        "big-endian": (mr_dataset(6), ExplicitVRBigEndian),
    }
    members = [member(dataset, transfer_syntax=syntax) for dataset, syntax in given.values()]
    assert [one.record.stored_transfer_syntax == HTJ2K_LOSSLESS_RPCL for one in members] == [True] * 4 + [False] * 2  # type: ignore[union-attr]
    house.take(*members, unfileable("q1", b"no data set"))
    done = run(house, "restore", "--to", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    for one, (dataset, syntax) in zip(members, given.values(), strict=True):
        meta, restored = split((tmp_path / "out" / one.name).read_bytes())
        assert bytes(restored) == dataset_bytes(dataset, syntax)
        assert meta.transfer_syntax == syntax
    assert (tmp_path / "out" / "unnamed" / "q1").read_bytes() == b"no data set"


def test_a_large_instance_of_its_own_segment(house: House, tmp_path: Path) -> None:
    house.take(member(mr_dataset(1)))
    file = part10(mr_dataset(2))
    path = house.folder / "archive" / "segments" / "default" / "2026" / "03" / "01" / "large.tar"
    streamed = StreamedSegment(SystemDisk(), path)
    streamed.write(file)
    streamed.finish("default/large.dcm", {"ce_id": "m1"})
    done = run(house, "restore", "--to", str(tmp_path / "out"))
    assert "default/large.dcm SHA-256 of the file equal" in done.stdout
    assert (tmp_path / "out" / "default" / "large.dcm").read_bytes() == file


def test_a_wrong_bit_is_said_and_not_restored(house: House, tmp_path: Path) -> None:
    house.take(member(mr_dataset(1), keep=True), member(mr_dataset(2)))
    (first, _) = [placed.location for placed, _ in house.reader.placed()]
    path = house.folder / "archive" / "segments" / first.segment
    content = bytearray(path.read_bytes())
    content[first.offset + 600] ^= 1
    path.write_bytes(content)
    done = run(house, "restore", "--to", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "WRONG: SHA-256 of the data set differs" in done.stderr
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 1


def test_listing_and_verifying_write_nothing(house: House, tmp_path: Path) -> None:
    house.take(member(mr_dataset(1)), unfileable("q1"))
    before = sorted(tmp_path.rglob("*"))
    listed, verified = run(house, "list"), run(house, "verify")
    assert sorted(tmp_path.rglob("*")) == before
    assert [len(done.stdout.splitlines()) for done in (listed, verified)] == [2, 2]
    assert listed.returncode == verified.returncode == 0


def test_names_are_not_trusted(tmp_path: Path) -> None:
    root = tmp_path / "out"
    for name in ("../../etc/passwd", "/etc/passwd", "a/../../b", "a\\..\\b", "..", "a/./b"):
        assert root in (place(root, name) / "x").resolve().parents, name


def test_another_decoder_may_be_named(house: House, tmp_path: Path) -> None:
    """Any command that reads a codestream and writes raw samples will do."""
    house.take(member(mr_dataset(1)))
    decoder = tmp_path / "decoder.py"
    decoder.write_text(
        "import sys, imagecodecs\n"
        "samples = imagecodecs.htj2k_decode(open(sys.argv[1], 'rb').read())\n"
        "open(sys.argv[2], 'wb').write(samples.astype('<u2').tobytes())\n"
    )
    done = run(house, "verify", "--decoder", f"{sys.executable} {decoder} {{in}} {{out}}")
    assert "SHA-256 of the data set equal" in done.stdout, done.stderr
