"""Everything that happens in a data centre, done to a region under load; then the account.

`SANSFILM_MATRIX_FAULTS` faults (by default each of the catalogue once) in an order that `SANSFILM_MATRIX_SEED` repeats.
With `SANSFILM_MATRIX_TABLE` the table is written into that file.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archive.opening import open_store
from region.cluster import Cluster, Shape
from runtime.faults import FOLDER_VARIABLE
from tests.crash.account import check_account
from tests.crash.ledger import Ledger
from tests.crash.modalities import INLINE_MAX_BYTES
from tests.matrix.disks import small_disks
from tests.matrix.faults import Fault, catalogue
from tests.matrix.region import Region, sending
from tests.region.proxy import Proxy

FAULTS = int(os.environ.get("SANSFILM_MATRIX_FAULTS", "0"))
SEED = os.environ.get("SANSFILM_MATRIX_SEED") or str(random.SystemRandom().randrange(10**6))
TABLE = os.environ.get("SANSFILM_MATRIX_TABLE", "")
#: Of the disks that are filled.
DISK_BYTES = 512 * 1024 * 1024
ROOT = Path(__file__).parents[2]
SETTINGS = {
    "SANSFILM_INLINE_MAX_BYTES": str(INLINE_MAX_BYTES),
    "SANSFILM_LOG_FILE_MAX_BYTES": str(1024 * 1024),
    "SANSFILM_RESTART_WAIT_MAX_S": "0.25",
    "SANSFILM_LANE_RULES": "MR1=urgent,MR3=bulk",
    "SANSFILM_BULK_WAIT_S": "0.3",
    "SANSFILM_RETRY_WAIT_MAX_S": "1",
    "SANSFILM_TIDE_PERIOD_S": "2",
    "SANSFILM_COMPACT_PERIOD_S": "1",
    "SANSFILM_COMPACT_AFTER_S": "0",
    "SANSFILM_COMPACT_WAIT_S": "3",
    "SANSFILM_COMPACT_TARGET_BYTES": str(2 * 1024 * 1024),
    "SANSFILM_COMPACT_BELOW_BYTES": str(1024 * 1024),
    "SANSFILM_COLLECT_PERIOD_S": "10",
    "SANSFILM_COLLECT_AFTER_S": "150",  # above the longest outage: a claim check waits for its message
    "SANSFILM_COLLECT_GRACE_S": "2",
    "SANSFILM_S3_READ_TIMEOUT_S": "5",
    "SANSFILM_S3_REQUEST_TIMEOUT_S": "10",
    "SANSFILM_CATALOG_STATEMENT_TIMEOUT_S": "10",
    "SANSFILM_CATALOG_LOCK_TIMEOUT_S": "5",
}


def rounds(seed: str, count: int, faults: Sequence[Fault]) -> list[list[Fault]]:
    """Each fault once before any a second time; what comes late is at the end of its round. 0: each once."""
    rng, planned, left = random.Random(seed), list[list[Fault]](), count or len(faults)
    while left > 0:
        one = sorted(rng.sample(faults, len(faults)), key=lambda fault: fault.is_late)[:left]
        planned.append(one)
        left -= len(one)
    return planned


@pytest.mark.timeout(600 + 30 * FAULTS)
def test_nothing_acknowledged_is_lost_whatever_happens(tmp_path: Path) -> None:
    print(f"\nSANSFILM_MATRIX_SEED={SEED} SANSFILM_MATRIX_FAULTS={FAULTS}")
    rng, recoveries = random.Random(SEED), defaultdict[Fault, list[float]](list)
    with ExitStack() as stack:
        region = stack.enter_context(under_fire(tmp_path))
        stack.enter_context(region.tended())
        with sending(region.cluster, region.ledger):
            region.recovered("the start")
            for planned in rounds(SEED, FAULTS, possible(region)):
                for fault in planned:
                    if fault.ahead:
                        fault.ahead(region, rng)
                for fault in planned:
                    recoveries[fault].append(recovery_s(fault, region, rng))
                    print(f"{recoveries[fault][-1]:6.1f} s  {fault.name}", flush=True)
        region.cluster.drained()
        committed = account(region)
        assert list(region.faults.iterdir()) == []
    answers = f"{region.ledger.successes.total()} acknowledged, {region.ledger.unanswered.total()} unanswered"
    print(f"{answers}, refused {dict(region.ledger.refusals)}; {committed} versions committed")
    if TABLE:
        (ROOT / TABLE).write_text(page(recoveries, region, committed))


def possible(region: Region) -> list[Fault]:
    """The catalogue, without disks that are full where nothing may be mounted."""
    return [fault for fault in catalogue() if region.disks or not fault.fills_disk]


def recovery_s(fault: Fault, region: Region, rng: random.Random) -> float:
    """Seconds from a fault to the commit of something that was sent after it, by each route."""
    began_s = time.monotonic()
    fault.act(region, rng)
    if fault.is_late:
        began_s = time.monotonic()
    region.recovered(fault.name)
    return time.monotonic() - began_s


class under_fire:  # noqa: N801 - reads as a statement
    """A region with a proxy before its object store, armed with the folder of fault points."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Region:
        faults = self._folder / "faults"
        faults.mkdir()
        settings = {**SETTINGS, FOLDER_VARIABLE: str(faults)}
        cluster = Cluster(self._folder / "region", Shape(settings=settings, own_clocks=True))
        small = [cluster.folder / "edge-0", cluster.kafka.brokers[0].folder]
        try:
            disks = self._stack.enter_context(small_disks(small, size_bytes=DISK_BYTES))
            proxy = self._stack.enter_context(Proxy(cluster.s3.port))
            settings["SANSFILM_S3_ENDPOINT"] = f"http://127.0.0.1:{proxy.port}"
            self._stack.enter_context(cluster)
            region = Region(cluster=cluster, ledger=Ledger(), faults=faults, proxy=proxy, disks=disks)
            self._stack.enter_context(closing(region.reader))
        except BaseException:
            self._stack.close()
            raise
        return region

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def account(region: Region) -> int:
    """Everything that must hold; gives the number of versions."""
    with closing(open_store(region.cluster.settings())) as store:
        committed = check_account(region.reader, store, region.ledger).total()
    assert region.cluster.ask("archive", "verify")["clean"]
    return committed


def page(recoveries: dict[Fault, list[float]], region: Region, committed: int) -> str:
    """The table as a page of the documentation."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    count = sum(map(len, recoveries.values()))
    return "\n".join(_lines(recoveries, region.ledger, committed, count, commit.strip()))


def _lines(
    recoveries: dict[Fault, list[float]], ledger: Ledger, committed: int, count: int, commit: str
) -> Iterator[str]:
    yield "# The fault matrix"
    yield ""
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}: {count} faults (seed {SEED}) on one machine: three Kafka"
        " brokers, PostgreSQL, an S3 server, two spooling edges, a worker a lane, a keeper and web, while modalities"
        f" sent. Repeat it with `make crash-matrix MATRIX_SEED={SEED} MATRIX_FAULTS={count}`."
    )
    yield ""
    yield (
        f"{ledger.successes.total()} sendings were acknowledged, {ledger.unanswered.total()} got no answer and"
        f" {ledger.refusals.total()} were refused, and sent again. Afterwards every acknowledged instance was committed"
        f" exactly once ({committed} versions), gave back what was sent (SHA-256), counters equalled counts, nothing"
        " waited, and `archive verify` was clean."
    )
    yield ""
    yield "| fault | what | times | seconds until new instances were committed again, longest |"
    yield "|---|---|---|---|"
    for fault, seconds in sorted(recoveries.items(), key=lambda item: item[0].name):
        yield f"| {fault.name} | {fault.what} | {len(seconds)} | {max(seconds):.1f} |"
    yield ""
