"""The workers of one lane in a running region: started, looked at, drained, killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.replay_mri.gauges import usage_by_role
from region.cluster import Cluster
from region.role import Role
from runtime.health import collect
from schemas.message import Lane

_BALANCE_TIMEOUT_S: Final = 60.0
#: On a machine that is short of processors a worker may take its time.
_ANSWER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a worker has done since its start, and the partitions it reads now."""

    instances: int = 0
    batches: int = 0
    cpu_s: float = 0.0
    partitions: int = 0

    def since(self, earlier: Look) -> Look:
        """The difference of the running totals; partitions are those of now."""
        return Look(
            instances=self.instances - earlier.instances,
            batches=self.batches - earlier.batches,
            cpu_s=self.cpu_s - earlier.cpu_s,
            partitions=self.partitions,
        )


def parsed(page: str, *, cpu_s: float = 0.0) -> Look:
    """What a worker's /metrics say."""
    instances = batches = partitions = 0.0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "sansfilm_verdicts_total" and sample.labels["verdict"] != "decision":
                instances += sample.value
            elif sample.name == "sansfilm_batch_seconds_count" and sample.labels["step"] == "commit":
                batches += sample.value
            elif sample.name == "sansfilm_log_partitions":
                partitions += sample.value
    return Look(instances=int(instances), batches=int(batches), cpu_s=cpu_s, partitions=int(partitions))


class Pool:
    """Workers by number; none at first. Launch from the main thread: they die with the thread that launched them."""

    def __init__(self, cluster: Cluster, lane: Lane) -> None:
        self._cluster, self._lane = cluster, lane
        self._running: dict[int, Role] = {}

    def launch(self, number: int, **settings: str) -> None:
        """Start one without waiting, with settings (environment variables) of its own."""
        role = self._cluster.worker_role(number, [self._lane])
        role.launch(**settings)
        self._running[number] = role

    def start(self, count: int, **settings: str) -> None:
        """Start `count` workers with these settings, and wait until each has its share of the partitions.

        Raises:
            NotReady: one ended, or is not ready in time.
            RuntimeError: the partitions are not shared out in time.
        """
        for number in range(count):
            self.launch(number, **settings)
        self.await_balance()

    def drain(self, number: int) -> None:
        """SIGTERM, and wait for its end."""
        self._running.pop(number).stop()

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self._running.pop(number).kill()

    def stop(self) -> None:
        """Drain all at once."""
        with ThreadPoolExecutor(max(1, len(self._running))) as threads:
            list(threads.map(Role.stop, self._running.values()))
        self._running.clear()

    def looks(self) -> dict[int, Look]:
        """Of every worker that runs, now. Raises RuntimeError if one does not answer."""
        return {number: self._look(role) for number, role in self._running.items()}

    def await_balance(self) -> None:
        """Wait until every partition has a worker and no worker has more than one above its share. See `start`."""
        for role in self._running.values():
            role.await_ready()
        total = self._cluster.shape.partitions
        share = total // len(self._running)
        ends_s = time.monotonic() + _BALANCE_TIMEOUT_S
        while True:
            held = [look.partitions for look in self.looks().values()]
            if sum(held) == total and min(held) >= share:
                return
            if time.monotonic() > ends_s:
                raise RuntimeError(f"{total} partitions are shared as {held} after {_BALANCE_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)

    def _look(self, role: Role) -> Look:
        name, ends_s = role.folder.name, time.monotonic() + _ANSWER_TIMEOUT_S
        while not (page := "".join(process.metrics for process in collect(role.folder / "run"))):
            if time.monotonic() > ends_s:
                raise RuntimeError(f"{name} does not say what it has done")
            time.sleep(_POLL_S)
        return parsed(page, cpu_s=usage_by_role({name: [role.pid]})[name].cpu_s)
