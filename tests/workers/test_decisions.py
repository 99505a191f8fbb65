"""Operators' decisions, through the log and the worker."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.dataset import Dataset

from archive.sql_catalog import SqlCatalog
from runtime.errors import Retryable
from schemas.decisions import DiscardQuarantined, ReplayQuarantined, UseVersion
from schemas.reasons import QuarantineReason
from tests.datasets import mr_dataset
from tests.workers.lives import live_until_it_stops
from tests.workers.pool import SCOPE, TENANT, Pool, decision, message
from workers import decisions, judging
from workers.preparation import Judged, quarantine

MakePool = Callable[..., Pool]
FIRST, SECOND = mr_dataset(1), mr_dataset(1, seed=1)


def use(pool: Pool, wire_sha256: str) -> str:
    """Decide, and say which version is current then."""
    uid = str(FIRST.SOPInstanceUID)
    pool.work(decision(UseVersion(tenant=TENANT, sop_instance_uid=uid, wire_sha256=wire_sha256)))
    return current(pool, FIRST)


def current(pool: Pool, content: Dataset) -> str:
    (digest,) = [version.wire_sha256 for version, _ in pool.versions(content) if version.current]
    return digest


def test_a_version_is_used_and_the_first_again(pool: Pool) -> None:
    pool.work(message(FIRST), message(SECOND))
    first, second = (version.wire_sha256 for version, _ in pool.versions(FIRST))
    assert current(pool, FIRST) == first
    assert use(pool, second) == second
    assert use(pool, first) == first
    assert use(pool, "0" * 64) == first  # there is no such version


def test_a_decision_in_the_batch_of_its_instances_comes_after_them(pool: Pool) -> None:
    pool.work(message(FIRST))
    first = current(pool, FIRST)
    pool.work(message(SECOND))
    (second,) = {version.wire_sha256 for version, _ in pool.versions(FIRST)} - {first}
    third = mr_dataset(1, seed=2)
    uid = str(FIRST.SOPInstanceUID)
    pool.work(decision(UseVersion(tenant=TENANT, sop_instance_uid=uid, wire_sha256=second)), message(third))
    assert current(pool, FIRST) == second
    assert pool.counts() == (1, 3, 0)


def test_a_fault_at_a_decision_commits_nothing_twice(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.work(message(b"no DICOM file at all"))
    (entry,) = pool.quarantined()
    commits, attempts = [], []
    commit, execute = SqlCatalog.commit_batch, decisions.execute

    def counted(self: SqlCatalog, *args: Any, **options: Any) -> Any:
        commits.append(1)
        return commit(self, *args, **options)

    def busy_once(*args: Any, **options: Any) -> bool:
        attempts.append(1)
        if len(attempts) == 1:
            raise Retryable("the database is busy")
        return execute(*args, **options)

    monkeypatch.setattr(SqlCatalog, "commit_batch", counted)
    monkeypatch.setattr(decisions, "execute", busy_once)
    pool.work(message(FIRST), decision(DiscardQuarantined(tenant=TENANT, quarantine_id=entry["id"])))
    assert (len(commits), len(attempts)) == (1, 2)
    assert pool.counts() == (1, 1, 0)


def test_what_is_fileable_now_is_filed_by_a_replay(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quarantined by a program that could not file it; the program as it is now can."""

    def older(attributes: Any, file: Any, *_: Any) -> Judged:
        return quarantine(attributes, file, QuarantineReason.DECODE_LIMIT, "an older program")

    with monkeypatch.context() as patch:
        patch.setattr(judging, "judge", older)
        pool.work(message(FIRST))
    assert pool.counts() == (0, 0, 1)
    (entry,) = pool.quarantined()
    replay = decision(ReplayQuarantined(tenant=TENANT, quarantine_id=entry["id"]))
    pool.work(replay)
    assert pool.counts() == (1, 1, 0)
    pool.work(replay)  # delivered again
    assert pool.counts() == (1, 1, 0)


def test_what_still_cannot_be_filed_stays_open(pool: Pool) -> None:
    pool.work(message(b"no DICOM file at all"))
    (entry,) = pool.quarantined()
    pool.work(decision(ReplayQuarantined(tenant=TENANT, quarantine_id=entry["id"])))
    assert pool.quarantined() == [entry]


@pytest.mark.parametrize("kept", [0, 600])
def test_a_replay_of_bytes_that_are_lost_changes_nothing(pool: Pool, kept: int) -> None:
    pool.work(message(b"no DICOM file at all"))
    (entry,) = pool.quarantined()
    path = pool.path(entry["location"].segment)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    if not kept:
        path.unlink()
    pool.publish(decision(ReplayQuarantined(tenant=TENANT, quarantine_id=entry["id"])), message(FIRST))
    assert pool.life() is None
    assert pool.quarantined() == [entry]
    assert pool.counts() == (1, 1, 1)


def test_a_claim_that_was_brought_back_is_filed_by_a_replay(make_pool: MakePool) -> None:
    pool = make_pool(transcode="keep")
    claim = pool.claim(FIRST)
    path = pool.path(claim.attributes.data_ref)
    whole = path.read_bytes()
    path.unlink()
    pool.work(claim)
    (entry,) = pool.quarantined()
    path.write_bytes(whole)
    pool.work(decision(ReplayQuarantined(tenant=TENANT, quarantine_id=entry["id"])))
    assert pool.counts() == (1, 1, 0)
    ((version, _),) = pool.versions(FIRST)
    assert version.location.segment == claim.attributes.data_ref  # adopted: not written a second time


def test_a_replay_that_kills_its_worker_is_quarantined_and_not_executed(pool: Pool) -> None:
    """The entry killed it, so the replay does."""
    sent = message(FIRST)
    uid = sent.attributes.sop_instance_uid
    pool.publish(sent)
    live_until_it_stops(pool, uid)
    replay = decision(ReplayQuarantined(tenant=TENANT, quarantine_id=sent.attributes.id))
    pool.publish(replay)
    codes, _ = live_until_it_stops(pool, uid)
    assert codes == [-signal.SIGKILL] * 5 + [0]
    assert pool.left() == 0
    assert {(entry["id"], entry["reason"]) for entry in pool.quarantined()} == {
        (sent.attributes.id, QuarantineReason.KILLS_WORKER),
        (replay.attributes.id, QuarantineReason.KILLS_WORKER),
    }


def test_a_discarded_entry_is_closed_and_its_bytes_stay(pool: Pool) -> None:
    pool.work(message(b"no DICOM file at all"))
    (entry,) = pool.quarantined()
    pool.work(decision(DiscardQuarantined(tenant=TENANT, quarantine_id=entry["id"])))
    assert pool.counts() == (0, 0, 0)
    (closed,) = pool.reader.quarantined(SCOPE, include_closed=True)
    assert closed["state"] == "discarded"
    assert b"no DICOM file at all" in pool.path(entry["location"].segment).read_bytes()


def test_rubbish_is_no_decision_and_holds_nobody_up(pool: Pool) -> None:
    nobody = DiscardQuarantined(tenant="elsewhere", quarantine_id="nobody")
    replayed = ReplayQuarantined(tenant=TENANT, quarantine_id="nobody")
    rubbish = [b"", b"\xff\xfe", b"[]", b'{"decision": "delete_everything"}', b'{"decision": "use_version"}']
    sent = [decision(one) for one in rubbish]
    pool.work(message(FIRST), *sent, decision(nobody), decision(replayed), message(mr_dataset(2)))
    assert pool.counts() == (2, 2, len(rubbish))
    entries = {entry["id"]: entry for entry in pool.quarantined()}
    assert entries.keys() == {one.attributes.id for one in sent}  # of another version of this program, perhaps
    assert {entry["reason"] for entry in entries.values()} == {QuarantineReason.PARSE_FAILED}
    pool.work(decision(ReplayQuarantined(tenant=TENANT, quarantine_id=sent[-1].attributes.id)))
    pool.work(decision(DiscardQuarantined(tenant=TENANT, quarantine_id=sent[0].attributes.id)))
    assert pool.counts() == (2, 2, len(rubbish) - 1)
