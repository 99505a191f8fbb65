"""The whole system under `kill -9`: everything acknowledged is committed exactly once, and a rebuild says the same.

`SANSFILM_CRASH_KILLS` kills (at least one at every fault point and as many at random moments) hit the edge, the worker
and the web of one running system while modalities send. After each, the system recovers by itself: what is acknowledged
after the kill is committed before the next one. `SANSFILM_CRASH_SEED` repeats a run's order of kills.

One modality's instances are urgent, so two lanes of the worker are at it. Halfway the system is stopped, undrained,
and started with the other transcoding policy.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from archive.local_store import LocalSegmentStore
from archive.sql_reader import SqlCatalogReader, open_reader
from runtime.faults import FOLDER_VARIABLE, POINTS
from schemas.message import Lane
from schemas.reasons import KeptReason
from tests.archive.house import snapshot
from tests.cli.test_up import ROLES, House
from tests.crash.account import SCOPE, check_account
from tests.crash.ledger import Item, Ledger
from tests.crash.modalities import INLINE_MAX_BYTES, CStoreModality, Modality, StowModality, encoded, store_once
from tests.crash.system import pids_by_role
from tests.datasets import PLANTED
from tests.waiting import until

KILLS = int(os.environ.get("SANSFILM_CRASH_KILLS", str(2 * len(POINTS))))
SEED = os.environ.get("SANSFILM_CRASH_SEED") or str(random.SystemRandom().randrange(10**6))
RECOVERY_S = 30.0
CSTORE_STREAMS, STOW_STREAMS = (1, 2, 3), (4,)
SETTINGS = {
    "SANSFILM_INLINE_MAX_BYTES": str(INLINE_MAX_BYTES),
    "SANSFILM_LOG_FILE_MAX_BYTES": str(1024 * 1024),
    "SANSFILM_RESTART_WAIT_MAX_S": "0.25",
    "SANSFILM_LANE_RULES": f"MR{CSTORE_STREAMS[0]}=urgent",
}
POLICIES = ("htj2k", "keep")
#: The second half's instances have numbers of their own.
SECOND_HALF = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: of whoever reaches `point` first, or of `role` after so many further acknowledgements."""

    point: str = ""
    role: str = ""
    acknowledgements: int = 0


def plan(seed: str, kills: int) -> list[Kill]:
    """Half of the kills at fault points, each of them before any a second time; half at random."""
    rng = random.Random(seed)
    points: list[str] = []
    while len(points) < (kills + 1) // 2:
        points += rng.sample(POINTS, len(POINTS))
    planned = [Kill(point=point) for point in islice(points, (kills + 1) // 2)]
    planned += [Kill(role=rng.choice(ROLES), acknowledgements=rng.randint(0, 60)) for _ in range(kills // 2)]
    rng.shuffle(planned)
    return planned


@dataclass
class System:
    """A running system, its senders' ledger, and who died so far."""

    house: House
    process: subprocess.Popen[str]
    faults: Path
    ledger: Ledger
    reader: SqlCatalogReader
    died: Counter[str] = field(default_factory=Counter)

    def kill(self, kill: Kill) -> None:
        """Do it, and wait for the recovery."""
        before = until(self._all_there, timeout_s=RECOVERY_S, what="the start of all roles")
        if kill.point:
            (self.faults / kill.point).touch()
            what = f"a death at {kill.point}"
        else:
            goal = self.ledger.successes_total + kill.acknowledgements
            until(lambda: self.ledger.successes_total >= goal, timeout_s=RECOVERY_S, what="more acknowledgements")
            os.kill(before[kill.role], signal.SIGKILL)
            what = f"the death of {kill.role}"
        until(lambda: before.items() - pids_by_role(self.process).items(), timeout_s=RECOVERY_S, what=what)
        self._recover(before, what)

    def _recover(self, before: dict[str, int], what: str) -> None:
        after = until(self._all_there, timeout_s=RECOVERY_S, what=f"the restart after {what}")
        self.died.update(role for role in ROLES if before[role] != after[role])
        self.ledger.forget_newest()
        until(lambda: len(self.ledger.newest()) == 2, timeout_s=RECOVERY_S, what=f"acknowledgements after {what}")
        for route, (uid, digest) in self.ledger.newest().items():
            until(
                lambda uid=uid, digest=digest: digest in self.digests(uid),  # type: ignore[misc]
                timeout_s=RECOVERY_S,
                what=f"a commit of what came by {route} after {what}",
            )

    def digests(self, uid: str) -> list[str]:
        """The committed versions of an instance."""
        return [known.wire_sha256 for known, _ in self.reader.versions(SCOPE, uid)]

    def _all_there(self) -> dict[str, int]:
        found = pids_by_role(self.process)
        return found if found.keys() == set(ROLES) else {}


@contextmanager
def sending(house: House, ledger: Ledger, first: int = 0) -> Iterator[list[Modality]]:
    """Modalities at work, from their instance `first` on."""
    modalities: list[Modality] = [CStoreModality(one, house.dicom_port, ledger, first) for one in CSTORE_STREAMS]
    modalities += [StowModality(one, house.http_port, ledger, first) for one in STOW_STREAMS]
    try:
        yield modalities
    finally:
        for modality in modalities:
            modality.stop()
        for modality in modalities:
            modality.close()


def stop(process: subprocess.Popen[str]) -> None:
    """As an operator does."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def asked(house: House, *words: str) -> Any:
    """What a command says as JSON; it must succeed."""
    done = house.run(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def store_contested(system: System) -> tuple[Item, Item]:
    """Two contents under one UID that no stream touches; the first is current."""
    first, other = (encoded("contested", 1, study=900, series=1, seed=seed) for seed in (0, 1))
    for one in (first, other):
        assert store_once(system.house.dicom_port, one) == 0
        system.ledger.offer(one)
        system.ledger.acknowledge(one, "cstore")
        until(lambda one=one: one.content[1] in system.digests(one.sop_instance_uid), what="a commit")  # type: ignore[misc]
    return first, other


@pytest.mark.timeout(120 + 8 * KILLS)
def test_everything_acknowledged_is_committed_once(tmp_path: Path) -> None:
    print(f"\nSANSFILM_CRASH_SEED={SEED} SANSFILM_CRASH_KILLS={KILLS}")
    house, ledger, faults = House(tmp_path / "data"), Ledger(), tmp_path / "faults"
    faults.mkdir()
    kills, settings = plan(SEED, KILLS), {**SETTINGS, FOLDER_VARIABLE: str(faults)}
    half = len(kills) // 2
    with closing(open_reader(house.folder / "catalog" / "catalog.sqlite")) as reader:
        with house.up(**settings, SANSFILM_TRANSCODE=POLICIES[0]) as process:
            system = System(house=house, process=process, faults=faults, ledger=ledger, reader=reader)
            first, chosen = store_contested(system)
            with sending(house, ledger):
                for kill in kills[:half]:
                    system.kill(kill)
            stop(process)
        with house.up(**settings, SANSFILM_TRANSCODE=POLICIES[1]) as process:
            system.process = process
            with sending(house, ledger, SECOND_HALF):
                asked(house, "conflict", "use", *chosen.content, "--wait-s", "30")
                for kill in kills[half:]:
                    system.kill(kill)
            asked(house, "status", "--wait-drained", "--timeout-s", "60")
            stop(process)
        with closing(LocalSegmentStore(house.folder / "archive")) as store:
            filed = check_account(reader, store, ledger)
        assert asked(house, "archive", "verify")["clean"]
        current = {known.wire_sha256: known.current for known, _ in reader.versions(SCOPE, chosen.sop_instance_uid)}
        assert current == {first.content[1]: False, chosen.content[1]: True}
        live = snapshot(reader)
        report = asked(house, "archive", "rebuild")
        assert report["clean"]
        assert snapshot(reader) == live
    print(f"died {dict(system.died)}; acknowledged {dict(Counter(ledger.acknowledged.values()))}", end=" ")
    print(f"unanswered {dict(ledger.unanswered)} refused {dict(ledger.refusals)}; {live['counters']}", end=" ")
    print(f"filed {dict(filed)}")
    assert {lane for lane, _ in filed} == {Lane.URGENT, Lane.ROUTINE}
    assert {kept for _, kept in filed} >= {None, KeptReason.POLICY_KEEP}
    assert system.died.total() >= len(kills)
    assert list(faults.iterdir()) == []
    logs = "".join(path.read_text() for path in (house.folder / "logs").iterdir())
    assert not any(value in logs for value in PLANTED.values())
