"""Stored members compared element by element, whatever they became on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from archive.compare import comparer
from archive.segment_store import Buffer
from runtime.errors import Retryable
from schemas.record import MemberLocation
from tests.archive.house import House
from tests.archive.samples import member, names, unfileable
from tests.datasets import PLANTED, mr_dataset


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("keep", [True, False], ids=["native", "transcoded"])
def test_a_reencoding_is_equal_to_what_is_stored(house: House, syntax: str, keep: bool) -> None:
    house.take(member(mr_dataset(1), keep=keep))
    again = mr_dataset(1)
    if syntax == ExplicitVRBigEndian:  # pydicom writes OW as it is given
        again.PixelData = np.frombuffer(again.PixelData, "<u2").byteswap().tobytes()
    assert names(list(house.take(member(again, transfer_syntax=syntax)))) == ["Same"]


@pytest.mark.parametrize(
    "other",
    [mr_dataset(1, seed=1), mr_dataset(1, StudyDescription="Knee"), mr_dataset(1, PatientName="OTHER^NAME")],
    ids=["pixels", "description", "patient"],
)
def test_other_content_is_not(house: House, other: object) -> None:
    house.take(member(mr_dataset(1)))
    assert names(list(house.take(member(other, transfer_syntax=ImplicitVRLittleEndian)))) == ["Conflict"]  # type: ignore[arg-type]


def test_what_cannot_be_compared_is_not_equal_and_says_no_value(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = house.put([member(mr_dataset(1)), member(mr_dataset(1, PatientID="other"), keep=True)])
    (rubbish,) = house.put([unfileable("q1")])

    def breaks(dataset: Buffer, syntax: str) -> bytes:
        raise RuntimeError(f"cannot decode {PLANTED['PatientName']}")

    equal = comparer(house.store, breaks)
    assert not equal(a.location, rubbish.location)
    assert not equal(a.location, house.put([member(mr_dataset(1), keep=True)])[0].location)
    shown = capsys.readouterr()
    assert "comparison_failed" in shown.out + shown.err
    assert PLANTED["PatientName"] not in shown.out + shown.err
    assert not house.equal(a.location, b.location)


def test_a_store_that_is_away_decides_nothing(house: House) -> None:
    """A verdict is not guessed: the batch is tried again."""

    class Away:
        def read(self, location: MemberLocation) -> bytes:
            raise Retryable("the store is away")

    where = MemberLocation(segment="default/a.tar", offset=0, size_bytes=1)
    with pytest.raises(Retryable):
        comparer(Away(), house.equal)(where, where)  # type: ignore[arg-type]
