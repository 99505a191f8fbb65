"""Power cuts while the archive is written: what was promised is there, and every sync earns its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.local_store import LocalSegmentStore
from archive.segment_store import PreparedMember
from runtime.errors import Retryable
from schemas.record import MemberLocation
from segments.tar import SegmentDamaged
from tests.archive.samples import TENANT, StepClock, unfileable
from tests.disks import Loss, RecordingDisk, Site, losses, power_cut

Promise = tuple[str, MemberLocation | None, bytes]


def _content(member: PreparedMember) -> bytes:
    return b"".join(bytes(part) for part in member.parts)


def _story(disk: RecordingDisk, root: Path) -> None:
    """Two puts, a journal entry, a put of another tenant; each is promised when it returned."""
    store = LocalSegmentStore(root / "archive", disk=disk, clock=StepClock())
    for tenant, name in ((TENANT, "q1"), (TENANT, "q2"), ("north", "q3")):
        member = unfileable(name, name.encode() * 700)
        (location,) = store.put(tenant, [member]).locations
        disk.note((location.segment, location, _content(member)))
        key = store.put_journal({"kind": "x", "after": name})
        disk.note((key, None, b""))


def _broken_promises(disk: RecordingDisk, root: Path, target: Path, losses_of: list[Loss]) -> Iterator[str]:
    """What is missing after a power cut behind each operation; and what is visible without being whole."""
    for end in range(1, len(disk.operations) + 1):
        promised: list[Promise] = [one.note for one in disk.operations[:end] if one.kind == "note"]  # type: ignore[misc]
        for number, loss in enumerate(losses_of):
            left = target / f"{end}-{number}"
            left.mkdir(parents=True)
            power_cut(disk.operations[:end], root, left, loss)
            store = LocalSegmentStore(left / "archive", clock=StepClock())
            yield from (f"{end}: {what}" for what in _missing(store, promised))


def _missing(store: LocalSegmentStore, promised: list[Promise]) -> Iterator[str]:
    try:
        for key, location, content in promised:
            if location is None:
                store.journal_entry(key)
            elif store.read(location) != content or not store.index(key):
                yield f"{key} is not whole"
        for key in store.keys():  # noqa: SIM118
            if key.startswith("journal/"):
                store.journal_entry(key)
            else:
                store.index(key)
    except (FileNotFoundError, SegmentDamaged, Retryable) as error:
        yield f"{type(error).__name__}: {error}"


def test_what_was_put_survives_a_power_cut_at_every_point(tmp_path: Path) -> None:
    disk = RecordingDisk()
    _story(disk, tmp_path / "live")
    assert list(_broken_promises(disk, tmp_path / "live", tmp_path / "cut", losses(seed=3))) == []


def _sites(tmp_path: Path) -> set[Site]:
    disk = RecordingDisk()
    _story(disk, tmp_path)
    return disk.sites


def test_each_sync_is_needed(tmp_path: Path) -> None:
    """Leaving out any one sync of segments and journal breaks a promise."""
    sites = {site for site in _sites(tmp_path / "sites") if "SystemDisk.replace" not in site}
    assert len(sites) >= 3
    for number, site in enumerate(sorted(sites)):
        disk = RecordingDisk(ignored=site)
        live = tmp_path / f"live{number}"
        _story(disk, live)
        broken = list(_broken_promises(disk, live, tmp_path / f"cut{number}", [Loss(), Loss(keeps_entries=True)]))
        assert broken, f"nothing needs the sync at {site}"


def test_a_put_that_was_cut_leaves_parts_that_the_next_one_sweeps(tmp_path: Path) -> None:
    disk = RecordingDisk()
    _story(disk, tmp_path / "live")
    middle = next(
        place
        for place, one in enumerate(disk.operations)
        if one.kind == "rename" and one.path.suffix == ".part" and one.path.name.endswith(".tar.part")
    )
    left = tmp_path / "left"
    left.mkdir()
    power_cut(disk.operations[:middle], tmp_path / "live", left, Loss(keeps_entries=True, keeps_data=True))
    assert list(left.rglob("*.tar.part"))
    store = LocalSegmentStore(left / "archive", clock=StepClock())
    store.put(TENANT, [unfileable("q1")])
    assert list(left.rglob("*.part")) == []


@pytest.mark.parametrize("seed", range(3))
def test_torn_at_random(tmp_path: Path, seed: int) -> None:
    disk = RecordingDisk()
    _story(disk, tmp_path / "live")
    torn = losses(seed, random_ones=2)[4:]
    assert list(_broken_promises(disk, tmp_path / "live", tmp_path / "cut", torn)) == []
