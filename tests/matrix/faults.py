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
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from broker.kafka import KafkaConfiguration
from broker.kafka.topics import LogTopics
from broker.opening import kafka_configuration
from region.cluster import CLOCK
from runtime.faults import POINTS, REGION_POINTS
from schemas.message import Lane
from tests.matrix.region import RECOVERY_S, Region
from tests.waiting import until

#: An object store has nothing to sync.
NOT_REACHED = frozenset({"store.synced"})
#: Reached when something that a kill left behind is old enough: armed when a round begins, and waited for at its end.
_LATE = "collector."
#: Longer than the session timeout of the region's groups, in seconds.
LOST_S = 8.0
_BRIEFLY_S = 3.0
#: Longest wait for something to be collected, in seconds: its age, and a little.
_COLLECTED_S = 240.0
_OUT_OF_RESOURCES = 0xA700
#: Messages of a partition that are delivered once more.
_REWOUND = 40
_MINUTES_S, _DAY_S = 600.0, 86400.0

Act = Callable[[Region, random.Random], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault by name; `what` is for the table."""

    name: str
    what: str
    act: Act
    #: What is done when its round begins; `act` then only waits for it.
    ahead: Act | None = None
    #: Whether it belongs at the end of a round.
    is_late: bool = False
    #: Whether it needs a disk that can be filled.
    fills_disk: bool = False


def at_points() -> list[Fault]:
    """kill -9 of whoever reaches a named point first."""
    points = [point for point in (*POINTS, *REGION_POINTS) if point not in NOT_REACHED]
    return [_at(point) for point in points]


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


def of_disks() -> list[Fault]:
    """No byte is free."""
    return [
        Fault(name="an edge's disk is full", what="taken by something else; freed", act=_fill_edge, fills_disk=True),
        Fault(name="a broker's disk is full", what="it ends; freed, started", act=_fill_broker, fills_disk=True),
    ]


def of_time() -> list[Fault]:
    """What was is again, and clocks that say so."""
    return [
        Fault(
            name="PostgreSQL is restored",
            what="to what it was when the round began, and `archive reconcile` run, while everyone goes on",
            ahead=_back_up,
            act=_restore,
        ),
        Fault(name="messages are delivered again", what="a lane's group is set back", act=_rewind),
        Fault(name="a clock jumps", what="ten minutes ahead or back, of one role, and stays so", act=_jump),
        Fault(name="a clock is a day off", what="of one role, for seconds", act=_be_a_day_off),
    ]


def catalogue() -> list[Fault]:
    """Every fault, once."""
    return [*at_points(), *of_processes(), *of_components(), *of_disks(), *of_time()]


# ---- acts ----------------------------------------------------------------------------------------------------------


def _at(point: str) -> Fault:
    def arm(region: Region, _: random.Random) -> None:
        (region.faults / point).touch()

    def await_death(region: Region, _: random.Random) -> None:
        armed = region.faults / point
        until(lambda: not armed.exists(), timeout_s=_COLLECTED_S, what=f"a death at {point}")

    def act(region: Region, rng: random.Random) -> None:
        arm(region, rng)
        await_death(region, rng)

    name = f"kill at {point}"
    if point.startswith(_LATE):
        return Fault(name=name, what=_meaning(point), ahead=arm, act=await_death, is_late=True)
    return Fault(name=name, what=_meaning(point), act=act)


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


def _fill_edge(region: Region, _: random.Random) -> None:
    disk = region.disks[region.cluster.edges[0].folder]
    refused = region.ledger.refusals[_OUT_OF_RESOURCES]
    disk.fill()
    try:
        until(
            lambda: region.ledger.refusals[_OUT_OF_RESOURCES] > refused,
            timeout_s=RECOVERY_S,
            what="a refusal by the edge whose disk is full",
        )
        _pause(_BRIEFLY_S)
    finally:
        disk.free()


def _fill_broker(region: Region, _: random.Random) -> None:
    broker = region.cluster.kafka.brokers[0]
    disk = region.disks[broker.folder]
    disk.fill()
    try:
        until(lambda: not broker.is_running, timeout_s=RECOVERY_S, what="the end of a broker whose disk is full")
    finally:
        disk.free()
    broker.start()


def _back_up(region: Region, _: random.Random) -> None:
    region.cluster.postgres.back_up()


def _restore(region: Region, _: random.Random) -> None:
    region.cluster.postgres.kill()
    region.cluster.postgres.restore()
    assert region.cluster.ask("archive", "reconcile")["clean"]


def _rewind(region: Region, rng: random.Random) -> None:
    lane = rng.choice(list(Lane))
    with region.stopped(region.cluster.workers[list(Lane).index(lane)]):
        configuration = kafka_configuration(region.cluster.settings())
        until(
            lambda: _is_set_back(configuration, lane),
            timeout_s=RECOVERY_S,
            what="an empty group, whose positions can be set",
        )


def _is_set_back(configuration: KafkaConfiguration, lane: Lane) -> bool:
    """Set the positions of a group back; not as long as it has members."""
    earlier = [
        TopicPartition(partition.topic, partition.partition, max(found.first, (found.committed or 0) - _REWOUND))
        for partition, found in LogTopics(configuration).reach(lane).items()
    ]
    group, admin = configuration.group(lane), AdminClient(configuration.admin())
    asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, earlier)])
    try:
        asked[group].result(10)
    except KafkaException:
        return False
    return True


def _jump(region: Region, rng: random.Random) -> None:
    role = rng.choice(region.cluster.roles)
    (role.folder / CLOCK).write_text(str(rng.choice([-_MINUTES_S, _MINUTES_S])))


def _be_a_day_off(region: Region, rng: random.Random) -> None:
    clock = rng.choice(region.cluster.roles).folder / CLOCK
    clock.write_text(str(rng.choice([-_DAY_S, _DAY_S])))
    _pause(_BRIEFLY_S)
    clock.write_text("0")


def _pause(seconds: float) -> None:
    """How long a fault lasts: part of the fault, nothing is waited for."""
    threading.Event().wait(seconds)


def _meaning(point: str) -> str:
    where, _, when = point.partition(".")
    return f"{where}: {when.replace('_', ' ')}"
