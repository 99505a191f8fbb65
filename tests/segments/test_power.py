"""A segment under power cuts: a state machine against a dict, and every sync shown to matter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from segments.reader import read_index, scan
from segments.recover import TornKind, recover
from segments.streamed import StreamedSegment
from segments.sweep import sweep_parts
from segments.writer import SegmentWriter
from tests.disks import RecordingDisk, Site, losses, power_cut

KEY = "0190-aa.tar"
CHUNK = b"a chunk of pixels" * 40


class SegmentMachine(RuleBasedStateMachine):
    """Append, sync, seal, cut the power, recover, go on in a new file."""

    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.TemporaryDirectory()
        self.number = 0
        self.start()

    def start(self) -> None:
        self.number += 1
        self.root = Path(self.base.name) / str(self.number)
        self.root.mkdir()
        self.disk = RecordingDisk()
        self.writer = SegmentWriter(self.disk, self.root / KEY)
        self.disk.sync_folder(self.root)
        self.written: dict[str, bytes] = {}
        self.durable: set[str] = set()
        self.is_sealed = False

    def teardown(self) -> None:
        self.writer.close()
        self.base.cleanup()

    @precondition(lambda self: not self.is_sealed)
    @rule(parts=st.lists(st.binary(max_size=1500), max_size=4))
    def append(self, parts: list[bytes]) -> None:
        name = f"m{len(self.written)}"
        self.writer.append(name, {"ce_id": name}, parts)
        self.written[name] = b"".join(parts)

    @rule()
    def sync(self) -> None:
        self.writer.sync()
        self.durable = set(self.written)

    @precondition(lambda self: not self.is_sealed)
    @rule()
    def seal(self) -> None:
        self.writer.seal([b"{}"] * len(self.written))
        self.is_sealed = True

    @rule()
    def read(self) -> None:
        content = (self.root / KEY).read_bytes()
        found = {m.name: content[m.offset : m.offset + m.size_bytes] for m in scan(self.root / KEY)}
        assert found == self.written
        if self.is_sealed:
            lines = read_index(lambda offset, size: content[offset : offset + size], len(content))
            assert len(lines) == len(self.written)

    @rule(seed=st.integers(0, 2**16))
    def crash_and_recover(self, seed: int) -> None:
        self.writer.close()
        for number, loss in enumerate(losses(seed)):
            target = Path(self.base.name) / f"{self.number}-{number}"
            power_cut(self.disk.operations, self.root, target, loss)
            recovery = recover(target / KEY)
            content = (target / KEY).read_bytes()
            found = {m.name: content[m.offset : m.offset + m.size_bytes] for m in recovery.members}
            assert self.durable <= found.keys()
            assert found.items() <= self.written.items()
            assert {piece.kind for piece in recovery.torn} <= {TornKind.TAIL}
        self.start()


TestSegmentMachine = SegmentMachine.TestCase
TestSegmentMachine.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def stream_two(root: Path, ignored: Site | None = None) -> RecordingDisk:
    """Two claim checks in a folder made for them; notes what was promised."""
    disk = RecordingDisk(ignored=ignored)
    for number in range(2):
        segment = StreamedSegment(disk, root / f"default/2026/{number}.tar")
        for _ in range(3):
            segment.write(CHUNK)
        segment.finish("a.dcm", {"ce_id": str(number)})
        disk.note(number)
    return disk


def broken_promises(disk: RecordingDisk, root: Path, scratch: Path) -> list[str]:
    """What a power cut behind any operation takes back of what `stream_two` promised."""
    broken = []
    for at in range(len(disk.operations) + 1):
        promised = [one.note for one in disk.operations[:at] if one.kind == "note"]
        for number, loss in enumerate(losses(at)):
            target = scratch / f"{at}-{number}"
            target.mkdir(parents=True)
            power_cut(disk.operations[:at], root, target, loss)
            sweep_parts(RecordingDisk(), target)
            whole = {path.stem for path in target.rglob("*.tar") if _is_whole(path)}
            broken += [f"{at}: {one} is gone" for one in promised if str(one) not in whole]
            broken += [f"{at}: {path.stem} is torn" for path in target.rglob("*.tar") if path.stem not in whole]
            broken += [f"{at}: {path.name} was left" for path in target.rglob("*.part")]
    return broken


def _is_whole(path: Path) -> bool:
    recovery = recover(path)
    return not recovery.torn and [member.size_bytes for member in recovery.members] == [3 * len(CHUNK)]


STREAMED_SITES: list[Site] = [
    ("folder", "SystemDisk.make_folder", "StreamedSegment.__init__"),
    ("file", "StreamedSegment._seal", "StreamedSegment.finish"),
    ("folder", "StreamedSegment._seal", "StreamedSegment.finish"),
]


def test_a_claim_check_survives_a_power_cut_at_every_point(tmp_path: Path) -> None:
    disk = stream_two(tmp_path / "root")

    assert broken_promises(disk, tmp_path / "root", tmp_path / "cut") == []
    assert disk.sites == set(STREAMED_SITES)


@pytest.mark.parametrize("site", STREAMED_SITES, ids=" < ".join)
def test_without_any_one_sync_it_would_not(tmp_path: Path, site: Site) -> None:
    disk = stream_two(tmp_path / "root", ignored=site)

    assert site in disk.sites
    assert broken_promises(disk, tmp_path / "root", tmp_path / "cut") != []
