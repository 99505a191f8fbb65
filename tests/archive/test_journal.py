"""Journal entries come back, and rubbish is none; a decision is in the journal before it takes effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from archive.decisions import execute
from archive.journal import ConflictNoted, DecisionNoted, Entry, decode_entry, write
from archive.local_store import LocalSegmentStore
from runtime.errors import OutOfSpace
from schemas.decisions import DiscardQuarantined, UseVersion
from tests.archive.house import House
from tests.archive.samples import SCOPE, TENANT, StepClock, member, unfileable
from tests.datasets import PLANTED, mr_dataset


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "entry",
    [
        ConflictNoted(
            tenant=TENANT, sop_instance_uid="1.2", wire_sha256="a", current_wire_sha256="b", message_id="m", at="now"
        ),
        DecisionNoted(
            id="d1", decision=UseVersion(tenant=TENANT, sop_instance_uid="1.2", wire_sha256="a"), by="ops", at="now"
        ),
        DecisionNoted(id="d2", decision=DiscardQuarantined(tenant=TENANT, quarantine_id="q"), by="ops", at="now"),
    ],
)
def test_an_entry_comes_back(tmp_path: Path, entry: Entry) -> None:
    store = LocalSegmentStore(tmp_path, clock=StepClock())
    assert decode_entry(store.journal_entry(write(store, entry))) == entry


@pytest.mark.parametrize(
    "rubbish", [b"", b"{}", b"[]", b'{"kind":"erase"}', b'{"kind":"conflict"}', b'{"kind":"decision"}']
)
def test_rubbish_is_no_entry(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="not a journal entry"):
        decode_entry(rubbish)


def test_a_conflict_names_who_stayed_and_no_patient(house: House) -> None:
    first, other = member(mr_dataset(1)), member(mr_dataset(1, seed=9))
    house.take(first, other)
    (key,) = house.store.keys("journal/")
    body = house.store.journal_entry(key)
    entry = decode_entry(body)
    assert isinstance(entry, ConflictNoted)
    assert (entry.wire_sha256, entry.current_wire_sha256) == (other.record.wire_sha256, first.record.wire_sha256)
    assert all(value.encode() not in body for value in PLANTED.values())


def test_a_decision_takes_no_effect_while_the_journal_is_full(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.take(unfileable("q1"))

    def full(entry: Mapping[str, object]) -> str:
        raise OutOfSpace("cannot append: ENOSPC")

    monkeypatch.setattr(house.store, "put_journal", full)
    discard = DiscardQuarantined(tenant=TENANT, quarantine_id="q1")
    with pytest.raises(OutOfSpace):
        execute(house.catalog, house.store, discard, decision_id="d1", decided_at="", decided_by="ops")
    assert len(house.reader.quarantined(SCOPE)) == 1
    monkeypatch.undo()
    assert execute(house.catalog, house.store, discard, decision_id="d1", decided_at="", decided_by="ops")
    assert house.reader.quarantined(SCOPE) == []
