"""The catalogue of faults: each is done to a region under load, and undone as an operator or a network would."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from runtime.faults import POINTS, REGION_POINTS
from tests.matrix.region import RECOVERY_S, Region
from tests.waiting import until

#: Points that are not reached here: an object store has nothing to sync, and what the keeper does after hours, it does
#: not do in minutes (tests/keeper kills it at each of these).
NOT_REACHED = frozenset(
    {"store.synced"} | {point for point in REGION_POINTS if point.startswith(("collector.", "compactor."))}
)
#: Longer than the session timeout of the region's groups, in seconds.
LOST_S = 8.0
_BRIEFLY_S = 3.0

Act = Callable[[Region, random.Random], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault by name; `what` is for the table."""

    name: str
    what: str
    act: Act


def at_points() -> list[Fault]:
    """kill -9 of whoever reaches a named point first."""
    points = [point for point in (*POINTS, *REGION_POINTS) if point not in NOT_REACHED]
    return [Fault(name=f"kill at {point}", what=_meaning(point), act=_killing_at(point)) for point in points]


def of_processes() -> list[Fault]:
    """kill -9 of a process of ours at a random moment, and a worker that is frozen until it has lost its partitions."""
    kinds = ("edge", "forwarder", "worker", "keeper", "web")
    return [
        *(
            Fault(name=f"kill {kind}", what=f"a random {kind} process, any moment", act=_killing(kind))
            for kind in kinds
        ),
        Fault(name="kill an edge's supervisor", what="and with it its edge and forwarder", act=_kill_supervisor),
        Fault(name="freeze a worker", what="past the session timeout, then woken: a zombie", act=_freeze_worker),
    ]


def of_components() -> list[Fault]:
    """Brokers, database and object store: killed, frozen, slow, refusing, dropping."""
    return [
        Fault(name="kill a broker", what="one of three; started again", act=_kill_brokers(1)),
        Fault(name="kill two brokers", what="below min.insync.replicas; started again", act=_kill_brokers(2)),
        Fault(name="freeze a broker", what="past the session timeout, then woken", act=_freeze_broker),
        Fault(name="kill PostgreSQL", what="all its processes; started again", act=_kill_postgres),
        Fault(name="freeze PostgreSQL", what="open connections, no answers; woken", act=_freeze_postgres),
        Fault(
            name="PostgreSQL out of connections", what="others hold all of them for a while", act=_use_up_connections
        ),
        Fault(name="kill S3", what="started again", act=_kill_s3),
        Fault(name="freeze S3", what="connections accepted, no answers; woken", act=_freeze_s3),
        Fault(
            name="S3 answers 500", what="to a dozen requests", act=lambda region, _: region.proxy.answer(500, times=12)
        ),
        Fault(name="S3 drops a PUT", what="the connection, in its middle", act=_drop_request),
        Fault(name="S3 drops an answer", what="the connection, after the request was heard", act=_drop_answer),
        Fault(name="S3 is slow", what="no byte passes for seconds", act=_hold_s3),
    ]


def catalogue() -> list[Fault]:
    """Every fault, once."""
    return [*at_points(), *of_processes(), *of_components()]


# ---- acts ----------------------------------------------------------------------------------------------------------


def _killing_at(point: str) -> Act:
    def act(region: Region, _: random.Random) -> None:
        armed = region.faults / point
        armed.touch()
        until(lambda: not armed.exists(), timeout_s=RECOVERY_S, what=f"a death at {point}")

    return act


def _killing(kind: str) -> Act:
    def act(region: Region, rng: random.Random) -> None:
        names = until(
            lambda: sorted(name for name in region.pids() if name.endswith(f"/{kind}")),
            timeout_s=RECOVERY_S,
            what=f"a running {kind}",
        )
        _pause(rng.uniform(0, 0.5))
        region.kill(rng.choice(names))

    return act


def _kill_supervisor(region: Region, rng: random.Random) -> None:
    with suppress(ProcessLookupError):
        os.kill(rng.choice(region.cluster.edges).pid, signal.SIGKILL)


def _freeze_worker(region: Region, rng: random.Random) -> None:
    worker = rng.choice(region.cluster.workers)
    worker.freeze()
    _pause(LOST_S)
    worker.thaw()


def _kill_brokers(count: int) -> Act:
    def act(region: Region, rng: random.Random) -> None:
        brokers = rng.sample(list(region.cluster.kafka.brokers), count)
        for broker in brokers:
            broker.kill()
        _pause(_BRIEFLY_S)
        for broker in brokers:
            broker.launch()
        for broker in brokers:
            broker.await_answer()

    return act


def _freeze_broker(region: Region, rng: random.Random) -> None:
    broker = rng.choice(list(region.cluster.kafka.brokers))
    broker.freeze()
    _pause(LOST_S)
    broker.thaw()


def _kill_postgres(region: Region, _: random.Random) -> None:
    region.cluster.postgres.kill()
    _pause(_BRIEFLY_S)
    region.cluster.postgres.start()


def _freeze_postgres(region: Region, _: random.Random) -> None:
    region.cluster.postgres.freeze()
    _pause(_BRIEFLY_S)
    region.cluster.postgres.thaw()


def _use_up_connections(region: Region, _: random.Random) -> None:
    url, held = region.cluster.postgres.url(), []
    try:
        with suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(url, connect_timeout=5))
        _terminate_ours(held[-1])
        _pause(_BRIEFLY_S)
    finally:
        for connection in held:
            connection.close()


def _terminate_ours(connection: psycopg.Connection) -> None:
    """End the product's sessions, so that it has to ask for new ones, of which there are none."""
    with suppress(psycopg.Error):
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'idle'"
        )


def _kill_s3(region: Region, _: random.Random) -> None:
    region.cluster.s3.kill()
    _pause(_BRIEFLY_S)
    region.cluster.s3.start()


def _freeze_s3(region: Region, _: random.Random) -> None:
    region.cluster.s3.freeze()
    _pause(_BRIEFLY_S)
    region.cluster.s3.thaw()


def _drop_request(region: Region, rng: random.Random) -> None:
    region.proxy.drop_request_after(rng.randrange(1, 20_000))
    until(region.proxy.settled.is_set, timeout_s=RECOVERY_S, what="a dropped request")


def _drop_answer(region: Region, rng: random.Random) -> None:
    region.proxy.drop_answer_after(rng.randrange(0, 200))
    until(region.proxy.settled.is_set, timeout_s=RECOVERY_S, what="a dropped answer")


def _hold_s3(region: Region, _: random.Random) -> None:
    with _held(region):
        _pause(_BRIEFLY_S)


@contextmanager
def _held(region: Region) -> Iterator[None]:
    region.proxy.hold()
    try:
        yield
    finally:
        region.proxy.release()


def _pause(seconds: float) -> None:
    """How long a fault lasts: part of the fault, nothing is waited for."""
    threading.Event().wait(seconds)


def _meaning(point: str) -> str:
    where, _, when = point.partition(".")
    return f"{where}: {when.replace('_', ' ')}"
