"""Real input, all accounted: every file of pydicom's test data and of pydicom-data, three ways, each sent twice."""

from __future__ import annotations

import pytest

from tests.corpus import manifest
from tests.corpus.accounting import ACCEPTS, COMMITTED, CONFLICT, SAME, Account, account_for_everything
from tests.corpus.offered import offered
from tests.corpus.routes import ROUTES

#: Files that each route must at least commit: a manifest of refusals would prove nothing.
COMMITTED_MIN = {"dcmsend": 220, "send": 231, "stow": 231}
pytestmark = pytest.mark.dcmtk


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return account_for_everything(tmp_path_factory.mktemp("corpus"))


def test_the_files_are_those_of_the_manifest() -> None:
    assert {one.name: one.sha256 for one in offered()} == {
        name: entry["sha256"] for name, entry in manifest.load().items()
    }


def test_every_file_became_what_the_manifest_says(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    for route in ROUTES:
        for sending in (0, 1):
            with capsys.disabled():
                print(f"\n{account.line(route, sending)}", end="")
            assert sum(account.totals(route, sending).values()) == len(offered())
            assert set(account.totals(route, sending)) <= {
                *("not_sendable", "refused", COMMITTED, SAME, CONFLICT, "quarantined")
            }
        assert account.totals(route, 0)[COMMITTED] >= COMMITTED_MIN[route]
    happened, expected = manifest.of(account), manifest.load()
    assert {name: happened[name] for name in happened if happened[name] != expected.get(name)} == {}


def test_what_is_committed_is_the_same_by_another_route(account: Account) -> None:
    """No sender's way of encoding makes a conflict of what another sent."""
    again = {second.partition(":")[0] for first, second in account.outcomes.values() if first == COMMITTED}
    assert again == {SAME, "not_sendable", "refused"}


def test_every_original_is_given_back(account: Account) -> None:
    committed = {key for key, (first, _) in account.outcomes.items() if first == COMMITTED}
    assert account.originals == committed
    assert account.retrievals == len(ACCEPTS) * len(committed)


def test_what_comes_back_unequal_is_few_and_explained(account: Account) -> None:
    unequal = {name for _, name, _ in account.not_equal}
    assert len(unequal) <= 5
    assert unequal <= manifest.reasons().keys()
    assert not any("lost" in both for both in account.outcomes.values())
