"""What is replayed against: `sansfilm up` or a region, in a folder of its own, or a system that runs already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import receivers
from benchmarks.processes import named, tree
from benchmarks.replay_mri.devices import LANE_RULES
from cli.association import Peer
from region.cluster import Cluster, Shape, WorkerShape
from region.kafka import KafkaCluster
from region.role import Role
from runtime.errors import Misconfigured
from runtime.health import socket_path
from schemas.message import Lane

#: More than the devices of a whole profile have.
_ASSOCIATIONS_MAX = 512
#: Full disks are another test: receiving stops before this one is.
_DISK_RESERVE_BYTES = 4 * 10**9
#: On one disk with brokers and store, which write what is spooled several times more.
_REGION_DISK_RESERVE_BYTES = 8 * 10**9
_NICENESS_MAX: Final = 19
#: A worker a lane; bulk's takes what the others leave.
WORKERS: Final = ("urgent=1", "routine=1", f"bulk=1@{_NICENESS_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running system, ready when given."""

    name: str
    host: str
    #: Of its edges; devices take turns.
    ports: Sequence[int]
    #: Root of the readers, like http://127.0.0.1:8080.
    web: str
    #: Addresses of /metrics pages, or paths of processes' sockets; together they cover every process that counts once.
    pages: Sequence[str]
    #: Processes whose CPU and writes are counted, by role.
    pids: Mapping[str, Sequence[int]]
    settings: Mapping[str, object]
    #: Whether others may send to it too.
    shared: bool = False
    #: Gives what ships bulk a quota of so many bytes a second: Kafka's own. None: there is no Kafka of ours.
    hold_bulk_down: Callable[[int], None] | None = None


@contextmanager
def embedded(
    folder: Path, *, transcode: str, inline_max_bytes: int | None = None, **environment: str
) -> Iterator[Target]:
    """`sansfilm up` on free ports."""
    settings = {**_settings(_DISK_RESERVE_BYTES, inline_max_bytes), **environment}
    with receivers.sansfilm(folder, transcode=transcode, edge_only=False, **settings) as receiver:
        web = f"http://127.0.0.1:{_http_port(receiver.pid)}"
        yield Target(
            name=receiver.name,
            host="127.0.0.1",
            ports=[receiver.port],
            web=web,
            pages=[f"{web}/metrics"],
            pids={role: _children(receiver.pid, f"sf-{role}-") for role in ("edge", "worker", "web")},
            settings=receiver.settings,
        )


@contextmanager
def cluster(folder: Path, shape: Shape, *, transcode: str, inline_max_bytes: int | None = None) -> Iterator[Target]:
    """A region (`region.cluster`) on free ports: brokers, PostgreSQL, S3, and the product's roles, a process each."""
    settings = {
        **_settings(_REGION_DISK_RESERVE_BYTES, inline_max_bytes),
        "SANSFILM_TRANSCODE": transcode,
        **shape.settings,
    }
    with Cluster(folder, replace(shape, settings=settings)) as region:
        yield Target(
            name="region",
            host="127.0.0.1",
            ports=region.dicom_ports,
            web=f"http://127.0.0.1:{region.http_port}",
            pages=[page for role in (*region.edges, *region.workers) for page in _sockets(role)],
            pids=_pids(region),
            settings=settings,
            hold_bulk_down=partial(_hold_down, region.kafka, Lane.BULK),
        )


def workers_of(texts: Sequence[str]) -> tuple[WorkerShape, ...]:
    """Workers from LANE=COUNT or LANE=COUNT@NICENESS, each of one lane.

    Raises:
        Misconfigured: one has another form, or a lane would have no worker.
    """
    workers: list[WorkerShape] = []
    for text in texts:
        lane, _, counted = text.partition("=")
        count, _, niceness = counted.partition("@")
        is_right = lane in set(Lane) and count.isdigit() and (niceness or "0").isdigit()
        if not is_right or int(niceness or 0) > _NICENESS_MAX:
            raise Misconfigured(f"{text!r} is not of the form LANE=COUNT or LANE=COUNT@NICENESS")
        workers += [WorkerShape(lanes=(Lane(lane),), niceness=int(niceness or 0))] * int(count)
    if missing := sorted(set(Lane) - {lane for worker in workers for lane in worker.lanes}):
        raise Misconfigured(f"no worker takes {', '.join(missing)}")
    return tuple(workers)


def by_role(names: Mapping[int, str]) -> dict[str, list[int]]:
    """Processes by their role, which those of the product are named after: ``sf-<role>-<index>``."""
    found: dict[str, list[int]] = {}
    for pid, name in names.items():
        head, _, index = name.rpartition("-")
        if head.startswith("sf-") and index.isdigit():
            found.setdefault(head.removeprefix("sf-"), []).append(pid)
    return found


def running(address: str, *, web: str, pages: Sequence[str], pids: Sequence[str]) -> Target:
    """A system at `address` (HOST:PORT) with its readers at `web`; `pids` are ROLE=PID.

    Raises:
        Misconfigured: one of them has another form.
    """
    peer = Peer.parse(address)
    of_role: dict[str, list[int]] = {}
    for one in pids:
        role, _, pid = one.partition("=")
        if not role or not pid.isdigit():
            raise Misconfigured(f"{one!r} is not of the form ROLE=PID")
        of_role.setdefault(role, []).append(int(pid))
    return Target(
        name=str(peer),
        host=peer.host,
        ports=[peer.port],
        web=web.rstrip("/"),
        pages=pages or [f"{web.rstrip('/')}/metrics"],
        pids=of_role,
        settings={},
        shared=True,
    )


def _settings(disk_reserve_bytes: int, inline_max_bytes: int | None) -> dict[str, str]:
    return {
        "SANSFILM_LANE_RULES": LANE_RULES,
        "SANSFILM_ASSOCIATIONS_MAX": str(_ASSOCIATIONS_MAX),
        "SANSFILM_ASSOCIATIONS_PER_CALLER_MAX": str(_ASSOCIATIONS_MAX),
        "SANSFILM_DISK_RESERVE_BYTES": str(disk_reserve_bytes),
        **({} if inline_max_bytes is None else {"SANSFILM_INLINE_MAX_BYTES": str(inline_max_bytes)}),
    }


def _hold_down(kafka: KafkaCluster, lane: Lane, bytes_per_s: int) -> None:
    """A quota is of each broker, and each leads as many partitions."""
    kafka.brokers[0].limit_client(f"sansfilm-{lane.value}", bytes_per_s=bytes_per_s // len(kafka.brokers))


def _sockets(role: Role) -> list[str]:
    return [str(socket_path(role.folder / "run", process, 0)) for process in role.awaits]


def _pids(region: Cluster) -> dict[str, list[int]]:
    """In the order of an instance's way. An edge's supervisor is in none: it waits."""
    below = [pid for role in region.edges for pid in tree(role.pid)]
    receiving = by_role({pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in below})
    return {
        **receiving,
        "broker": [broker.pid for broker in region.kafka.brokers],
        "worker": [worker.pid for worker in region.workers],
        "s3": [region.s3.pid],
        "postgres": [region.postgres.pid],
        "keeper": [region.keeper.pid],
        "web": [region.web.pid],
    }


def _children(root_pid: int, prefix: str) -> list[int]:
    first = named(root_pid, f"{prefix}0")
    others = [
        pid for pid in tree(root_pid) if pid != first and Path(f"/proc/{pid}/comm").read_text().startswith(prefix)
    ]
    return [first, *others]


def _http_port(pid: int) -> int:
    """As its environment says: the receivers of the other benchmarks tell their DICOM port alone."""
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"SANSFILM_HTTP_PORT":
            return int(value)
    raise LookupError("SANSFILM_HTTP_PORT")
