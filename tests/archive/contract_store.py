"""What every segment store promises; a test module inherits it and gives the fixtures.

`clock` is a `StepClock`, `store` is empty and has this clock; `reopened` opens the same place as another process would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archive.local_store import LocalSegmentStore
from archive.segment_store import AdoptedMember, SegmentStore
from schemas.record import MemberLocation, PlacedRecord, decode_placed
from tests.archive.samples import TENANT, StepClock, member, record, unfileable
from tests.datasets import mr_dataset

Reopen = Callable[[], SegmentStore]


class StoreContract:
    """Inherit, and give the fixtures."""

    def test_what_was_put_is_read(self, store: SegmentStore) -> None:
        members = [member(mr_dataset(number)) for number in (1, 2, 3)]
        locations = store.put(TENANT, members).locations
        for one, location in zip(members, locations, strict=True):
            assert store.read(location) == b"".join(bytes(part) for part in one.parts)
            assert location.size_bytes == one.size_bytes

    def test_a_batch_is_one_segment(self, store: SegmentStore) -> None:
        locations = store.put(TENANT, [member(mr_dataset(1)), unfileable("q1"), member(mr_dataset(2))]).locations
        assert len({location.segment for location in locations}) == 1
        assert list(store.keys()) == [locations[0].segment]

    def test_reading_a_range(self, store: SegmentStore) -> None:
        (location,) = store.put(TENANT, [unfileable("q1", bytes(range(256)))]).locations
        assert store.read(location, 10, 5) == bytes(range(10, 15))
        assert store.read(location, 250) == bytes(range(250, 256))
        assert store.read(location, 256) == b""

    @pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, 257), (257, None), (200, 100), (0, -1)])
    def test_a_range_outside_the_member_is_refused(self, store: SegmentStore, offset: int, size: int | None) -> None:
        (location,) = store.put(TENANT, [unfileable("q1", bytes(range(256)))]).locations
        with pytest.raises(ValueError, match="not inside the member"):
            store.read(location, offset, size)

    def test_streaming_gives_the_same_in_bounded_pieces(self, store: SegmentStore) -> None:
        content = bytes(range(256)) * 10_000
        (location,) = store.put(TENANT, [unfileable("q1", content)]).locations
        pieces = list(store.stream(location))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= 1024 * 1024
        assert b"".join(store.stream(location, 7, 1_500_000)) == content[7:1_500_007]

    def test_an_adopted_member_keeps_its_place_and_order(self, store: SegmentStore) -> None:
        (elsewhere,) = store.put(TENANT, [member(mr_dataset(1))]).locations
        adopted = AdoptedMember(record=record("1.1"), location=elsewhere)
        first, second, third = store.put(TENANT, [member(mr_dataset(2)), adopted, member(mr_dataset(3))]).locations
        assert second == elsewhere
        assert first.segment == third.segment != elsewhere.segment
        assert store.put(TENANT, [adopted]).locations == [elsewhere]

    def test_there_is_no_such_segment(self, store: SegmentStore) -> None:
        for key in ("default/2026/01/01/0.tar", "../../etc/passwd", "/etc/passwd", "default/../x.tar", ""):
            with pytest.raises(FileNotFoundError):
                store.read(MemberLocation(segment=key, offset=0, size_bytes=1))

    def test_keys_are_in_the_order_of_a_process_puts_also_after_another(
        self, store: SegmentStore, reopened: Reopen
    ) -> None:
        put = [store.put(TENANT, [unfileable("q1")]).locations[0].segment, store.put_journal({"kind": "x"})]
        put.append(store.put("aardvark", [unfileable("q2")]).locations[0].segment)
        again = reopened()
        put.append(again.put_journal({"kind": "y"}))
        put.append(again.put(TENANT, [unfileable("q3")]).locations[0].segment)
        assert list(again.keys()) == put
        assert list(again.keys("journal/")) == [put[1], put[3]]
        assert list(again.keys(f"{TENANT}/")) == [put[0], put[4]]
        assert list(again.sized_keys()) == [(key, store.size_bytes(key)) for key in put]

    def test_the_age_of_a_segment_is_the_stores_own(self, store: SegmentStore) -> None:
        """Not that of its key: the clock of these tests is years away from the store's."""
        put = [store.put(TENANT, [unfileable("q1")]).key, store.put_journal({"kind": "x"})]
        aged = dict(store.aged_keys())
        assert sorted(aged) == sorted(put)
        assert all(abs((datetime.now(UTC) - at).total_seconds()) < 3600 for at in aged.values())

    def test_its_clock_is_that_of_the_ages(self, store: SegmentStore) -> None:
        before = store.now()
        key = store.put(TENANT, [unfileable("q1")]).key
        second = timedelta(seconds=1)  # S3 tells no less
        assert before - second <= dict(store.aged_keys())[key] <= store.now() + second

    def test_a_state_is_written_over(self, store: SegmentStore, reopened: Reopen) -> None:
        assert store.read_state("tide.json") is None
        for body in (b"one", b"two"):
            store.put_state("tide.json", body)
            assert reopened().read_state("tide.json") == body
        assert list(store.keys()) == []

    def test_newest_first_over_tenants_and_without_the_journal(self, store: SegmentStore, reopened: Reopen) -> None:
        put = [store.put(tenant, [unfileable("q1")]).key for tenant in (TENANT, "aardvark", TENANT)]
        store.put_journal({"kind": "x"})
        put.append(reopened().put("zebra", [unfileable("q2")]).key)
        assert list(store.newest_first()) == put[::-1]

    def test_newest_first_over_days_and_years(self, store: SegmentStore, clock: StepClock) -> None:
        put = []
        for days in (0, 1, 35, 400):
            clock.moment += timedelta(days=days)
            put += [store.put(tenant, [unfileable("q1")]).key for tenant in (TENANT, "aardvark")]
        assert list(store.newest_first()) == put[::-1]
        assert list(store.keys()) == put

    def test_an_empty_store(self, store: SegmentStore) -> None:
        assert [*store.keys(), *store.keys("journal/"), *store.sized_keys(), *store.newest_first()] == []

    def test_the_index_holds_what_the_catalog_commits(self, store: SegmentStore) -> None:
        members = [member(mr_dataset(1)), unfileable("q1")]
        put = store.put(TENANT, members)
        lines = [decode_placed(line) for line in store.index(put.key)]
        assert lines == [
            PlacedRecord(record=m.record, location=at) for m, at in zip(members, put.locations, strict=True)
        ]

    def test_a_large_index_comes_back(self, store: SegmentStore) -> None:
        put = store.put(TENANT, [unfileable(f"q{number}") for number in range(400)])
        assert len(store.index(put.key)) == 400

    def test_what_verifies_in_a_segment(self, store: SegmentStore) -> None:
        members = [member(mr_dataset(1)), unfileable("q1")]
        put = store.put(TENANT, members)
        found = store.members(put.key)
        assert [(one.name, one.offset) for one in found.members] == [
            (one.name, at.offset) for one, at in zip(members, put.locations, strict=True)
        ]
        assert found.torn == []

    def test_a_journal_entry_comes_back(self, store: SegmentStore) -> None:
        key = store.put_journal({"kind": "x", "text": "é"})
        assert store.journal_entry(key) == '{"kind": "x", "text": "é"}'.encode()

    def test_the_bytes_of_a_segment_do_not_depend_on_the_store(self, store: SegmentStore, tmp_path: Path) -> None:
        beside = LocalSegmentStore(tmp_path / "beside", clock=StepClock())
        for one in (store, beside):
            one.put(TENANT, [member(mr_dataset(1)), unfileable("q1")])
        (key,) = store.keys()
        whole = MemberLocation(segment=key, offset=0, size_bytes=store.size_bytes(key))
        assert list(beside.keys()) == [key]
        assert store.read(whole) == (tmp_path / "beside" / "segments" / key).read_bytes()

    def test_deleting(self, store: SegmentStore) -> None:
        (location,) = store.put(TENANT, [unfileable("q1")]).locations
        assert store.read(location)
        store.delete(location.segment)
        store.delete(location.segment)
        assert list(store.keys()) == []
        with pytest.raises(FileNotFoundError):
            store.read(location)

    def test_a_tenant_that_is_none(self, store: SegmentStore) -> None:
        for tenant in ("journal", "../up", "", "A"):
            with pytest.raises(ValueError, match="tenant"):
                store.put(tenant, [unfileable("q1")])

    def test_many_readers_at_once(self, store: SegmentStore) -> None:
        locations = [store.put(TENANT, [unfileable(f"q{n}", bytes([n]) * 4096)]).locations[0] for n in range(20)]
        wrong: list[int] = []

        def read_all() -> None:
            for _ in range(20):
                wrong.extend(n for n, at in enumerate(locations) if store.read(at) != bytes([n]) * 4096)

        threads = [threading.Thread(target=read_all) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert wrong == []
