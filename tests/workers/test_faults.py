"""Faults that are nobody's message's doing: they pass, or stop the worker, and never quarantine what came in order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from archive.sql_catalog import SqlCatalog
from broker.local import LocalPublisher
from runtime.errors import Fatal, Retryable
from schemas.reasons import QuarantineReason
from segments.disk import SystemDisk
from tests.datasets import mr_dataset
from tests.workers.pool import Pool, message
from workers import preparation
from workers.attempts import AttemptBook, FilePages
from workers.pipeline import Pipeline

MakePool = Callable[..., Pool]


def failing(times: int, error: BaseException, step: Callable[..., Any]) -> Callable[..., Any]:
    """`step`, which raises `error` the first `times`."""
    calls = []

    def fail(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return step(*args, **options)

    return fail


# ---- faults that pass ----


@pytest.mark.parametrize("step", ["hint", "begin", "attempt", "done", "release"])
def test_a_passing_fault_repeats_whatever_step_it_meets(pool: Pool, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    fault = Retryable("away")
    if step == "attempt":  # as after two deaths: messages go one by one
        sent = message(mr_dataset(1))
        SystemDisk().make_folder(pool.settings.run_dir)
        for _ in range(3):
            AttemptBook(FilePages(pool.settings.run_dir, SystemDisk())).begin("routine", sent.attributes.id)
    else:
        sent = pool.claim(mr_dataset(1))
    pool.publish(sent)
    if step == "hint":
        monkeypatch.setattr(SqlCatalog, "known", failing(3, fault, SqlCatalog.known))
    elif step == "release":
        remove = SystemDisk.remove
        again = failing(2, fault, remove)
        monkeypatch.setattr(
            SystemDisk, "remove", lambda disk, path: (again if "segments" in path.parts else remove)(disk, path)
        )
    else:
        save = FilePages.save_attempts
        calls = {"begin": 0, "attempt": 1, "done": 1}[step]
        count: list[str] = []

        def saved(pages: FilePages, stream: str, page: str) -> None:
            count.append(page)
            if len(count) in (calls + 1, calls + 2):
                save(pages, stream, page)  # kept, and said not to be
                raise fault
            save(pages, stream, page)

        monkeypatch.setattr(FilePages, "save_attempts", saved)
    assert pool.life() is None
    assert (pool.left(), pool.counts()) == (0, (1, 1, 0))
    if step in ("begin", "attempt"):
        assert len({*count[calls : calls + 3]}) == 1


def test_a_catalog_that_is_away_for_long_quarantines_nobody(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away in a way that stops the process, life after life."""
    pool.publish(message(mr_dataset(1)))
    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "known", failing(99, Fatal("damaged"), SqlCatalog.known))
        for _ in range(6):
            assert isinstance(pool.life(), Fatal)
    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "commit_batch", failing(99, OSError("of the system"), SqlCatalog.commit_batch))
        for _ in range(6):
            assert isinstance(pool.life(), OSError)
    assert pool.life() is None
    assert pool.counts() == (1, 1, 0)


def test_an_error_of_ours_that_a_message_provokes_isolates_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody thought of it, so nobody maps it: the others must not wait for a new program."""
    good, bad = message(mr_dataset(1)), message(mr_dataset(2))
    pool.publish(good, bad)
    put = Pipeline.put

    def unthought_of(self: Pipeline, batch: Any) -> None:
        for one in batch.members:
            if one.record.attributes.id == bad.attributes.id and not hasattr(one.record, "reason"):
                raise OverflowError
        put(self, batch)

    monkeypatch.setattr(Pipeline, "put", unthought_of)
    lives = [pool.life() for _ in range(6)]
    assert [type(one) for one in lives] == [OverflowError] * 5 + [type(None)]
    assert pool.counts() == (1, 1, 1)
    (entry,) = pool.quarantined()
    assert (entry["id"], entry["reason"]) == (bad.attributes.id, QuarantineReason.KILLS_WORKER)


def test_a_message_for_which_there_was_no_memory_is_not_unparseable(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.publish(message(mr_dataset(1)))
    monkeypatch.setattr(preparation, "describe", failing(3, MemoryError(), preparation.describe))
    lives = [pool.life() for _ in range(4)]
    assert [type(one) for one in lives] == [MemoryError] * 3 + [type(None)]
    assert pool.counts() == (1, 1, 0)


def test_what_never_fits_into_memory_is_isolated(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.publish(message(mr_dataset(1)))
    monkeypatch.setattr(preparation, "describe", failing(99, MemoryError(), preparation.describe))
    lives = [pool.life() for _ in range(6)]
    assert [type(one) for one in lives] == [MemoryError] * 5 + [type(None)]
    assert [entry["reason"] for entry in pool.quarantined()] == [QuarantineReason.KILLS_WORKER]


def test_a_fault_that_passes_while_a_message_is_judged_repeats(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.publish(message(mr_dataset(1)))
    monkeypatch.setattr(preparation, "describe", failing(2, Retryable("the codec is busy"), preparation.describe))
    assert pool.life() is None
    assert pool.counts() == (1, 1, 0)


# ---- claim checks that are not there ----


def test_a_claim_that_was_rewritten_and_removed_may_come_again(pool: Pool) -> None:
    """The positions of the log were lost: everything still in it is delivered again."""
    with closing(LocalPublisher(pool.settings.log_dir, writer="edge-that-lives")) as publisher:
        claim = pool.claim(mr_dataset(1))
        publisher.publish(claim).result(5)
        assert pool.life() is None
        assert claim.attributes.data_ref not in pool.segments()
        for positions in pool.settings.log_dir.glob("*/positions-workers"):
            positions.write_bytes(bytes(131072))
        publisher.publish(message(mr_dataset(2))).result(5)
        assert pool.life() is None
    assert (pool.left(), pool.counts()) == (0, (2, 2, 0))


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_claim_that_is_lost_is_quarantined_where_it_lay(make_pool: MakePool, kept: int) -> None:
    pool = make_pool(transcode="keep")
    claim = pool.claim(mr_dataset(1))
    path = pool.path(claim.attributes.data_ref)
    whole = path.read_bytes()
    if kept:
        path.write_bytes(whole[:kept])
    else:
        path.unlink()
    pool.publish(claim, message(mr_dataset(2)))
    assert pool.life() is None
    assert (pool.left(), pool.counts()) == (0, (1, 1, 1))
    (entry,) = pool.quarantined()
    assert (entry["reason"], entry["location"].segment) == (QuarantineReason.CLAIM_LOST, claim.attributes.data_ref)
    assert path.exists() == bool(kept)  # what is left of it stays


def test_a_claim_that_kills_its_worker_is_not_looked_into(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = pool.claim(mr_dataset(1))
    SystemDisk().make_folder(pool.settings.run_dir)
    for _ in range(4):
        book = AttemptBook(FilePages(pool.settings.run_dir, SystemDisk()))
        book.begin("routine", claim.attributes.id)
        book.attempt("routine", claim.attributes.id)
    pool.path(claim.attributes.data_ref).unlink()
    pool.publish(claim)
    assert pool.life() is None
    (entry,) = pool.quarantined()
    assert (entry["reason"], entry["location"].segment) == (
        QuarantineReason.KILLS_WORKER,
        claim.attributes.data_ref,
    )


def test_a_large_claim_needs_no_room_elsewhere(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    pool = make_pool(transcode_max_bytes=1024 * 1024)
    pool.publish(pool.claim(mr_dataset(1, rows=1024, columns=1024)), message(mr_dataset(2)))
    assert pool.life() is None
    assert (pool.left(), pool.counts()) == (0, (2, 2, 0))
