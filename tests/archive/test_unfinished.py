"""What was put and not committed before a crash is committed at the start; a catalog of another day is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from archive.layout import path_of
from archive.segment_store import AdoptedMember, PreparedMember
from archive.unfinished import require_empty, unfinished
from ingest.large import LargeInstance, LocalClaimCheck
from runtime.errors import Misconfigured, Retryable
from schemas.decisions import DiscardQuarantined
from segments.disk import SystemDisk
from tests.archive.house import House, snapshot
from tests.archive.samples import TENANT, attributes, member, names, record, unfileable
from tests.datasets import mr_dataset
from workers.committing import Committer
from workers.retries import Stopped


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


def receipt(message_id: str, *, reencoded: bool = False) -> PreparedMember:
    """One content, as two senders encode it."""
    syntax = {"transfer_syntax": ImplicitVRLittleEndian} if reencoded else {}
    return member(mr_dataset(1, rows=16, columns=16), message_id=message_id, **syntax)  # type: ignore[arg-type]


def test_the_receipt_that_was_put_first_stands_in_the_live_and_in_the_rebuilt_catalog(house: House) -> None:
    """Its message comes again after that of another receipt: from another lane, say."""
    house.put([receipt("m1", reencoded=True)])
    assert house.start() == 1
    assert names(list(house.take(receipt("m2"), receipt("m1", reencoded=True)))) == ["Same", "Same"]
    live = snapshot(house.reader)
    assert [one.attributes.id for one in live["current"]] == ["m1"]
    house.rebuild()
    assert snapshot(house.reader) == live


def test_segments_are_committed_in_the_order_of_their_puts(house: House) -> None:
    house.take(unfileable("q1"))
    house.put([receipt("m1")])
    house.put([receipt("m2", reencoded=True)])
    assert house.start() == 2
    assert [one.attributes.id for one in snapshot(house.reader)["current"]] == ["m1"]
    assert house.start() == 0


def test_what_is_committed_is_left_alone(house: House) -> None:
    """Also where no version lies in the batch's segment: a quarantine entry, a duplicate, an adopted member."""
    claim = house.put([receipt("m1")])[0].location
    house.take(AdoptedMember(record=receipt("m1").record, location=claim))
    assert house.start() == 0
    house.take(receipt("m2", reencoded=True))
    assert house.start() == 0
    house.take(unfileable("q1"))
    assert house.start() == 0
    house.rebuild()
    assert house.start() == 0


def test_claim_checks_wait_for_their_batch(house: House) -> None:
    house.take(receipt("m1"))
    large = LargeInstance(LocalClaimCheck(SystemDisk(), house.folder / "archive", TENANT, house.clock))
    large.write(b"a large instance")
    large.finish(attributes("m2"))
    assert house.start() == 0
    house.put([receipt("m3", reencoded=True)])
    assert house.start() == 1


def test_a_member_whose_bytes_were_collected_is_left_out(house: House) -> None:
    house.take(receipt("m1"))
    (claim,) = house.put([unfileable("q1")])
    house.put([AdoptedMember(record=record("1.2.3"), location=claim.location), unfileable("q2")])
    house.store.delete(claim.location.segment)
    house.start()
    assert [entry[0] for entry in snapshot(house.reader)["quarantined"]] == ["q2"]


def test_a_damaged_index_is_passed_over(house: House) -> None:
    house.take(receipt("m1"))
    (placed,) = house.put([unfileable("q1")])
    path = path_of(house.folder / "archive", placed.location.segment)
    path.write_bytes(path.read_bytes()[:-1])
    house.put([unfileable("q2")])
    assert house.start() == 1


def test_a_catalog_of_another_day_is_refused(house: House) -> None:
    """More was put than one crash can leave: decisions may have been made since, only a rebuild follows them."""
    house.take(receipt("m1"))
    for number in range(4):
        house.put([unfileable(f"q{number}")])
    assert len(unfinished(house.store, house.catalog, segments_max=4)) == 4
    with pytest.raises(Misconfigured, match="sansfilm archive rebuild"):
        unfinished(house.store, house.catalog, segments_max=3)


def test_a_catalog_older_than_a_decision_is_refused(house: House) -> None:
    house.take(unfileable("q1"))
    house.put([receipt("m1")])
    house.decide(DiscardQuarantined(tenant=TENANT, quarantine_id="q1"), "d1")
    with pytest.raises(Misconfigured, match="copy from another day"):
        house.start()


def test_no_catalog_is_made_beside_an_archive_that_is_not_empty(house: House) -> None:
    require_empty(house.store)
    house.put([receipt("m1")])
    with pytest.raises(Misconfigured, match="the catalog is missing"):
        require_empty(house.store)


def test_a_put_whose_folder_cannot_be_synced_leaves_nothing(tmp_path: Path) -> None:
    """It is put again: of two copies a rebuild would read the one that was never committed first."""

    class Failing(SystemDisk):
        def sync_folder(self, path: Path) -> None:
            if any(path.glob("*.tar")):
                raise Retryable("cannot sync")
            super().sync_folder(path)

    house = House(tmp_path)
    house.store._disk = Failing()
    with pytest.raises(Retryable, match="cannot sync"):
        house.put([receipt("m1")])
    assert list(house.store.keys()) == []
    house.close()


def test_nothing_is_committed_after_a_batch_that_could_not_be() -> None:
    done: list[str] = []

    def fails() -> None:
        raise ValueError("for good")

    committer = Committer()
    futures = [committer.submit(step) for step in (lambda: done.append("first"), fails, lambda: done.append("third"))]
    committer.close()
    assert futures[0].exception() is None
    assert isinstance(futures[1].exception(), ValueError)
    assert isinstance(futures[2].exception(), Stopped)
    assert done == ["first"]
