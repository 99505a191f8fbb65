"""The disk rule, sampled; the places of associations."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from ingest.admission import PLENTY_BYTES, SAMPLE_AGE_MAX_S, VERIFICATION_RESERVE, DiskRule, Seats
from runtime.errors import Rejected
from runtime.settings import EdgeSettings
from schemas.reasons import RejectReason


@dataclass
class HandClock:
    """A clock that the test turns."""

    at_s: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return self.at_s

    def new_id(self) -> str:
        return "id"


@dataclass
class Disk:
    free_bytes: int
    uncommitted_bytes: int
    samples: int = 0

    def sample(self) -> int:
        self.samples += 1
        return self.free_bytes


@dataclass(eq=False)
class Chair:
    address: str = "127.0.0.1"
    evictions: list[str] = field(default_factory=list)

    def evict(self) -> None:
        self.evictions.append(self.address)


def disk_rule(disk: Disk, clock: HandClock) -> DiskRule:
    settings = EdgeSettings(disk_reserve_bytes=1000)
    return DiskRule(settings, clock, uncommitted_bytes=lambda: disk.uncommitted_bytes, free_bytes=disk.sample)


@pytest.mark.parametrize(("free_bytes", "has_room"), [(2100, True), (2099, False)])
def test_reserve_and_uncommitted_log(free_bytes: int, has_room: bool) -> None:
    rule = disk_rule(Disk(free_bytes, uncommitted_bytes=1000), HandClock())
    if has_room:
        rule.check()
        return
    with pytest.raises(Rejected) as refused:
        rule.check()
    assert refused.value.reason is RejectReason.DISK_LOW


def test_sampled_at_intervals_and_never_stuck() -> None:
    disk, clock = Disk(2 * PLENTY_BYTES, 0), HandClock()
    rule = disk_rule(disk, clock)
    for _ in range(100):
        rule.check()
    assert disk.samples == 1
    disk.free_bytes = 0
    rule.check()
    clock.at_s = SAMPLE_AGE_MAX_S
    with pytest.raises(Rejected):
        rule.check()
    disk.free_bytes = 2 * PLENTY_BYTES
    rule.check()
    assert disk.samples == 3


def test_near_the_limit_every_instance_asks() -> None:
    """A burst must not eat, between two samples, what its own filing will need."""
    disk = Disk(5000, 0)
    rule = disk_rule(disk, HandClock())
    rule.check()
    disk.free_bytes, disk.uncommitted_bytes = 3000, 2000
    with pytest.raises(Rejected):
        rule.check()


def test_seats() -> None:
    seats = Seats(EdgeSettings(associations_max=2, associations_per_caller_max=2))
    chairs = [Chair(f"10.0.0.{number}") for number in range(9)]
    for chair in chairs[:2]:
        seats.enter(chair)
        assert seats.associate(chair, verification_only=False)
    for chair in chairs[2:5]:
        seats.enter(chair)
    assert [chair.evictions for chair in chairs[2:5]] == [["10.0.0.2"], [], []]
    assert not seats.associate(chairs[3], verification_only=False)
    assert seats.associate(chairs[3], verification_only=True)
    seats.exit(chairs[0])
    assert seats.associate(chairs[4], verification_only=False)
    seats.dissociate(chairs[3])
    assert chairs[3] in seats.present() and chairs[0] not in seats.present()
    for chair in (*chairs[:5], chairs[3]):
        seats.exit(chair)
    assert seats.present() == []


def test_the_reserve_gives_way() -> None:
    seats = Seats(EdgeSettings(associations_max=1, associations_per_caller_max=1))
    first = Chair()
    seats.enter(first)
    assert seats.associate(first, verification_only=False)
    chairs = [Chair() for _ in range(VERIFICATION_RESERVE + 1)]
    for chair in chairs:
        seats.enter(chair)
        assert seats.associate(chair, verification_only=True)
    assert [bool(chair.evictions) for chair in chairs] == [True] + [False] * VERIFICATION_RESERVE
    assert not first.evictions
