"""The book of attempts, alone and under a worker that is really killed."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.message import Lane
from schemas.reasons import QuarantineReason
from segments.disk import SystemDisk
from tests.datasets import mr_dataset, part10
from tests.workers.lives import live_until_it_stops
from tests.workers.pool import Pool, message
from workers.attempts import AttemptBook, FilePages

STREAM = "routine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def start(folder: Path) -> Stream:
    """What a start of the process does."""
    return Stream(AttemptBook(FilePages(folder, SystemDisk())))


@dataclass
class Stream:
    """The one stream that most tests are about."""

    book: AttemptBook

    def begin(self, first_id: str) -> bool:
        return self.book.begin(STREAM, first_id)

    def is_killer(self, message_id: str) -> bool:
        return self.book.is_killer(STREAM, message_id)

    def attempt(self, message_id: str) -> None:
        self.book.attempt(STREAM, message_id)

    def done(self) -> None:
        self.book.done()


def test_two_unclean_resumptions_at_one_message_isolate(folder: Path) -> None:
    assert [start(folder).begin("a") for _ in range(4)] == [False, False, True, True]


def test_only_the_first_batch_of_a_start_counts(folder: Path) -> None:
    book = start(folder)
    assert [book.begin("a") for _ in range(4)] == [False] * 4


def test_a_resumption_elsewhere_counts_anew(folder: Path) -> None:
    assert [start(folder).begin(first) for first in ("a", "a", "b", "b", "b")] == [False, False, False, False, True]


def test_a_batch_that_is_committed_and_a_clean_stop_forget(folder: Path) -> None:
    for _ in range(5):
        book = start(folder)
        assert not book.begin("a")
        book.done()


def test_three_deaths_alone_make_a_killer(folder: Path) -> None:
    for _ in range(3):
        book = start(folder)
        assert not book.is_killer("a")
        book.attempt("a")
    book = start(folder)
    assert book.is_killer("a")
    assert not book.is_killer("b")


def test_deaths_of_one_that_passed_are_forgotten(folder: Path) -> None:
    for one in ("a", "a", "b", "a"):
        start(folder).attempt(one)
    assert not start(folder).is_killer("a")


def test_one_that_died_alone_stays_alone_after_those_before_it_are_committed(folder: Path) -> None:
    for _ in range(3):
        book = start(folder)
        book.begin("a")
    book.attempt("a")
    book.attempt("b")
    assert start(folder).begin("b")


def test_each_stream_has_a_page_of_its_own(folder: Path) -> None:
    for run in range(3):
        book = start(folder).book
        begun = [book.begin(STREAM, "a"), book.begin("bulk", "b" if run else "c")]
    assert begun == [True, False]


def test_what_one_stream_has_done_says_nothing_of_another(folder: Path) -> None:
    for _ in range(3):
        book = start(folder).book
        begun = [book.begin(stream, "a") for stream in (STREAM, "bulk")]
        book.done([STREAM])
    assert begun == [False, True]


def test_a_stream_that_comes_back_is_resumed(folder: Path) -> None:
    book = start(folder).book
    assert not book.begin(STREAM, "a")
    for _ in range(2):
        book.forget([STREAM])
        begun = book.begin(STREAM, "a")
    assert begun


def test_a_stream_given_up_in_order_is_begun_anew(folder: Path) -> None:
    book = start(folder).book
    for _ in range(4):
        assert not book.begin(STREAM, "a")
        book.done()
        book.forget([STREAM])


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]", b'{"other": 1}'])
def test_an_unreadable_book_is_begun_anew(folder: Path, content: bytes) -> None:
    (folder / f"attempts-{STREAM}.json").write_bytes(content)
    assert not start(folder).begin("a")


def test_a_message_that_kills_its_worker_is_isolated_and_quarantined(pool: Pool) -> None:
    """Two deaths in a batch, three alone; then the worker lives, and everything else is committed once."""
    slices = [mr_dataset(number) for number in range(1, 7)]
    killer = str(slices[3].SOPInstanceUID)
    pool.publish(*map(message, slices))
    codes, judged = live_until_it_stops(pool, killer)

    assert codes == [-signal.SIGKILL] * 5 + [0]
    # Alone: those before the killer were committed in the third run, so the fourth begins with it.
    assert [uids[-1] for uids in judged[:5]] == [killer] * 5
    assert judged[3] == judged[4] == [killer]
    assert judged[5] == [str(one.SOPInstanceUID) for one in slices[4:]]
    assert pool.counts() == (5, 5, 1)
    (entry,) = pool.quarantined()
    assert entry["reason"] == QuarantineReason.KILLS_WORKER
    assert pool.path(entry["location"].segment).read_bytes().count(part10(slices[3])) == 1


def test_a_killer_takes_nobody_of_another_lane_with_it(pool: Pool) -> None:
    killer, innocent = message(mr_dataset(1)), message(mr_dataset(2), lane=Lane.URGENT)
    pool.publish(killer, innocent)
    codes, _ = live_until_it_stops(pool, killer.attributes.sop_instance_uid, innocent.attributes.sop_instance_uid)
    assert codes[-1] == 0
    assert pool.counts() == (1, 1, 1)
    (entry,) = pool.quarantined()
    assert entry["id"] == killer.attributes.id


def test_a_worker_that_lives_clears_the_count(pool: Pool) -> None:
    folder = pool.settings.run_dir
    SystemDisk().make_folder(folder)
    sent = message(mr_dataset(1))
    for _ in range(3):
        begun = start(folder).begin(sent.attributes.id)
    pool.work(sent)
    assert begun
    assert not start(folder).begin(sent.attributes.id)
