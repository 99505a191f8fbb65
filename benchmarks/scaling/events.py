"""Workers that come and go under load: how long what was acknowledged waits for its commit, event by event."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from benchmarks.scaling.load import Load, Offer, Sent
from benchmarks.scaling.pool import Pool
from region.cluster import Cluster

QUIET: Final = "quiet"
_WARM_S: Final = 4.0
_SLOW: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was done to the pool, by the wall clock."""

    name: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """An instance that was acknowledged and committed, by the wall clock."""

    partition: str
    acknowledged_s: float
    committed_s: float

    @property
    def wait_s(self) -> float:
        return max(0.0, self.committed_s - self.acknowledged_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was committed from one event to the next."""

    name: str
    instances: int
    wait_s_median: float
    wait_s_max: float
    #: Instances that waited more than twice as long as any in the quiet, and the partitions they lay in.
    slow: int
    slow_partitions: int
    #: From the event until the last of them was committed: since then all is as it was.
    settled_s: float


def disturb(
    cluster: Cluster, pool: Pool, offer: Offer, *, settle_s: float, first_study: int
) -> tuple[list[Event], Sent]:
    """Two workers, then what happens to pools, `settle_s` apart, under the load."""
    pool.start(2)
    steps: list[tuple[str, Callable[[], None]]] = [
        (QUIET, lambda: None),
        ("a third joins", lambda: pool.launch(2)),
        ("one drains (SIGTERM)", lambda: pool.drain(0)),
        ("one is killed (SIGKILL)", lambda: pool.kill(1)),
        ("it comes back", lambda: pool.launch(1)),
    ]
    seconds = _WARM_S + settle_s * len(steps)
    events = []
    devices = offer.devices(seconds=seconds, first_study=first_study)
    with closing(Load(cluster.dicom_ports[0], devices, offer, seconds=seconds)) as load:
        for number, (name, step) in enumerate(steps):
            load.wait_until(_WARM_S + number * settle_s)
            events.append(Event(name=name, at_s=time.time()))
            step()
        sent = load.result()
    pool.await_balance()
    cluster.drained()
    pool.stop()
    return events, sent


def windows(events: Sequence[Event], commits: Sequence[Commit]) -> list[Window]:
    """The waits by the event after which an instance was committed; the first event is the quiet."""
    ends_s = [*(event.at_s for event in events[1:]), float("inf")]
    shares = [
        [one for one in commits if event.at_s <= one.committed_s < end_s]
        for event, end_s in zip(events, ends_s, strict=True)
    ]
    slow_s = _SLOW * max((one.wait_s for one in shares[0]), default=0.0)
    return [_window(event, share, slow_s) for event, share in zip(events, shares, strict=True)]


def _window(event: Event, commits: Sequence[Commit], slow_s: float) -> Window:
    waits_s = [one.wait_s for one in commits]
    slow = [one for one in commits if one.wait_s > slow_s]
    return Window(
        name=event.name,
        instances=len(commits),
        wait_s_median=statistics.median(waits_s) if waits_s else 0.0,
        wait_s_max=max(waits_s, default=0.0),
        slow=len(slow),
        slow_partitions=len({one.partition for one in slow}),
        settled_s=max((one.committed_s for one in slow), default=event.at_s) - event.at_s,
    )
