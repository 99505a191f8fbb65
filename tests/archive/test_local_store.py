"""Segments in a folder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archive import local_store
from archive.local_store import LocalSegmentStore
from archive.segment_store import SegmentStore
from runtime.errors import OutOfSpace
from schemas.record import MemberLocation
from segments.disk import OpenFile, SystemDisk
from segments.tar import SegmentDamaged
from tests.archive.contract_store import StoreContract
from tests.archive.samples import TENANT, StepClock, member, unfileable
from tests.datasets import mr_dataset


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def store(tmp_path: Path, clock: StepClock) -> Iterator[LocalSegmentStore]:
    opened = LocalSegmentStore(tmp_path / "archive", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def reopened(tmp_path: Path) -> Callable[[], SegmentStore]:
    """Reopens on a machine whose clock went back by years."""
    return lambda: LocalSegmentStore(tmp_path / "archive", clock=StepClock(datetime(1999, 1, 1, tzinfo=UTC)))


class TestLocalSegmentStore(StoreContract):
    """The contract in a folder."""


def test_a_member_is_a_valid_file_by_its_range_and_its_frames(store: LocalSegmentStore) -> None:
    one = member(mr_dataset(1, frames=3))
    (location,) = store.put(TENANT, [one]).locations
    file = store.read(location)
    assert file[128:132] == b"DICM"
    assert one.record.frames  # type: ignore[union-attr]
    for offset, size in one.record.frames:  # type: ignore[union-attr]
        assert store.read(location, offset, size).startswith(b"\xff\x4f\xff\x51"), "an HTJ2K codestream"


def test_nothing_is_written_by_reading(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    store = LocalSegmentStore(archive)
    assert list(store.keys()) == []
    assert not archive.exists()


def test_stale_parts_are_swept_and_those_in_use_are_not(store: LocalSegmentStore, tmp_path: Path) -> None:
    folder = tmp_path / "archive" / "segments" / TENANT
    folder.mkdir(parents=True)
    stale = folder / "dead.tar.part"
    stale.write_bytes(b"half")
    in_use = SystemDisk().create(folder / "alive.tar.part")
    store.put(TENANT, [unfileable("q1")])
    assert not stale.exists()
    assert (folder / "alive.tar.part").exists()
    in_use.close()


def test_the_root_explains_itself(store: LocalSegmentStore, tmp_path: Path) -> None:
    store.put(TENANT, [unfileable("q1")])
    root = tmp_path / "archive"
    assert "restore.py" in (root / "README.txt").read_text()
    assert "sansfilm." not in "".join(
        line for line in (root / "restore.py").read_text().splitlines() if "import" in line
    )
    assert sorted(path.name for path in root.iterdir()) == ["README.txt", "restore.py", "segments"]


def test_tar_lists_silently_and_extracts_with_provenance(store: LocalSegmentStore, tmp_path: Path) -> None:
    members = [member(mr_dataset(1)), member(mr_dataset(1, seed=5)), unfileable("q1")]
    (first, *_) = store.put(TENANT, members).locations
    segment = tmp_path / "archive" / "segments" / first.segment
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "-xvf", str(segment), "-C", str(out)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    for one in members:
        extracted = out / one.name
        assert extracted.read_bytes() == b"".join(bytes(part) for part in one.parts)
        if _keeps_attributes(out):
            said = os.getxattr(extracted, "user.sansfilm.ce_id").decode()
            assert said == one.record.attributes.id


def _keeps_attributes(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.sansfilm.try", b"1")
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return False
        raise
    return True


def test_pythons_tarfile_reads_names_and_provenance(store: LocalSegmentStore, tmp_path: Path) -> None:
    one = member(mr_dataset(1))
    (location,) = store.put(TENANT, [one]).locations
    with tarfile.open(tmp_path / "archive" / "segments" / location.segment) as segment:
        found = segment.getmembers()[0]
    digest = one.record.wire_sha256
    assert found.name.endswith(f".{digest[:16]}.dcm")
    assert found.pax_headers["SCHILY.xattr.user.sansfilm.wire_sha256"] == digest


def test_a_segment_cut_short_is_damaged(store: LocalSegmentStore, tmp_path: Path) -> None:
    (location,) = store.put(TENANT, [unfileable("q1", bytes(8192))]).locations
    os.truncate(tmp_path / "archive" / "segments" / location.segment, location.offset + 100)
    with pytest.raises(SegmentDamaged):
        store.read(location)


def test_descriptors_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_store, "DESCRIPTORS_MAX", 4)
    store = LocalSegmentStore(tmp_path / "archive", clock=StepClock())
    locations = [store.put(TENANT, [unfileable(f"q{n}", bytes([n]))]).locations[0] for n in range(12)]
    before = _open_files()
    for _ in range(2):
        assert [store.read(location) for location in locations] == [bytes([n]) for n in range(12)]
    assert _open_files() <= before + 4
    store.close()
    assert _open_files() == before


class _FullDisk(SystemDisk):
    """A disk that is full when the file is synced."""

    full = False

    def create(self, path: Path) -> OpenFile:
        file = super().create(path)
        if self.full:
            file.sync = _no_space  # type: ignore[method-assign]
        return file


def _no_space() -> None:
    raise OutOfSpace("cannot sync: ENOSPC")


def test_after_a_failed_put_nothing_is_visible_and_the_next_one_works(tmp_path: Path) -> None:
    disk = _FullDisk()
    store = LocalSegmentStore(tmp_path / "archive", disk=disk, clock=StepClock())
    store.put(TENANT, [unfileable("q0")])
    disk.full = True
    with pytest.raises(OutOfSpace):
        store.put(TENANT, [unfileable("q1")])
    assert len(list(store.keys())) == 1
    assert list((tmp_path / "archive").rglob("*.part")) == []
    disk.full = False
    assert store.read(store.put(TENANT, [unfileable("q1")]).locations[0]) == b"no data set"


def test_a_damaged_journal_entry_is_told(store: LocalSegmentStore, tmp_path: Path) -> None:
    key = store.put_journal({"kind": "x", "text": "é"})
    path = tmp_path / "archive" / "segments" / key
    path.write_bytes(path.read_bytes().replace(b'"kind"', b'"kine"'))
    with pytest.raises(SegmentDamaged):
        store.journal_entry(key)


def test_a_location_of_another_tool_is_no_path(store: LocalSegmentStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret.tar"
    secret.write_bytes(b"secret")
    shutil.copy(secret, tmp_path / "archive.tar")
    with pytest.raises(FileNotFoundError):
        store.read(MemberLocation(segment="../../secret.tar", offset=0, size_bytes=6))


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
