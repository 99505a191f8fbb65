"""A region on one machine, of real components: brokers, PostgreSQL and S3; edges, a worker a lane, a keeper, web."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from region.kafka import KafkaCluster
from region.ports import free_ports
from region.postgres import PostgresServer
from region.role import Role
from region.seaweedfs import EDGE, WORKER, Identity, SeaweedS3
from runtime.clock import FILE_VARIABLE as CLOCK_VARIABLE
from runtime.settings import CommonSettings
from schemas.message import Lane

_COMMAND: Final = "from cli.main import main; main()"
_BUCKET, _PREFIX = "archive", "site"
#: See `Shape.own_clocks`.
CLOCK: Final = "clock"
Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShape:
    """One worker."""

    lanes: Sequence[Lane]
    #: nice(2): 19 leaves the processor to whoever wants it.
    niceness: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the region is."""

    brokers: int = 3
    #: Of each partition of the product's topics; None: three, or as many as there are brokers.
    replication: int | None = None
    partitions: int = 6
    edges: int = 2
    workers: Sequence[WorkerShape] = tuple(WorkerShape(lanes=(lane,)) for lane in Lane)
    ack_mode: str = "spool"
    #: Ports of the edges and of web; free ones where none are given.
    dicom_ports: Sequence[int] = ()
    http_port: int = 0
    #: Whether each role has a clock of its own, ahead by the seconds that its folder's file ``clock`` holds.
    own_clocks: bool = False
    #: Settings of every role, by environment variable.
    settings: Mapping[str, str] = field(default_factory=dict)


class Cluster:
    """The region; a context manager, ready when entered. What it keeps is in one folder, and goes on with it."""

    def __init__(self, folder: Path, shape: Shape | None = None, *, notice: Notice = lambda _: None) -> None:
        """Starts nothing yet; `notice` is told what is being started."""
        self.shape = shape or Shape()
        self.folder = folder
        self._notice = notice
        self._stack = ExitStack()
        self._replication = self.shape.replication or min(self.shape.brokers, 3)
        self.kafka = KafkaCluster(folder / "kafka", count=self.shape.brokers)
        self.postgres = PostgresServer(folder / "postgres")
        self.s3 = SeaweedS3(folder / "s3", buckets=[_BUCKET], prefix=_PREFIX)
        ports = free_ports(self.shape.edges + 1)
        self.dicom_ports = list(self.shape.dicom_ports) or list(ports[:-1])
        self.http_port = self.shape.http_port or ports[-1]
        self.edges: list[Role] = []
        self.workers: list[Role] = []
        self.keeper: Role
        self.web: Role

    @property
    def roles(self) -> list[Role]:
        """Every role, in the order of an instance's way."""
        return [*self.edges, *self.workers, self.keeper, self.web]

    @property
    def environment(self) -> Mapping[str, str]:
        """What a command of the product needs to ask about this region."""
        return self.web.environment

    def settings(self) -> CommonSettings:
        """The settings of a process that asks about this region."""
        given = {name.removeprefix("SANSFILM_").lower(): value for name, value in self.web.settings.items()}
        return CommonSettings(**{name: value for name, value in given.items() if name in CommonSettings.model_fields})  # type: ignore[arg-type]

    def start(self) -> None:
        """Start everything, in the order in which one needs the other."""
        self._notice(f"starting {self.shape.brokers} Kafka brokers, PostgreSQL and S3 ...")
        self._stack.push(self.postgres)  # it has a folder of its own, even if what is started before it fails
        for component in (self.kafka, self.postgres, self.s3):
            self._stack.enter_context(component)
        self._make_roles()
        self._notice("making topics and tables ...")
        replicas = ("--replication", str(self._replication), "--allow-single")
        self.run("topics", "apply", "--partitions", str(self.shape.partitions), *replicas)
        self.run("catalog", "migrate")
        self._notice(f"starting {', '.join(role.name for role in self.roles)} ...")
        for role in self.roles:
            self._stack.callback(role.stop)
            role.launch()
        for role in self.roles:
            role.await_ready()

    def stop(self) -> None:
        """Stop everything: receivers first, then what is behind them."""
        for role in self.roles if self.edges else ():
            role.stop()
        self._stack.close()

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the product on this region.

        Raises:
            RuntimeError: it failed and `check` is set; its words are in the message.
        """
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *words],
            cwd=Path(__file__).parents[1],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=1800,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"sansfilm {' '.join(words)} failed: {done.stderr[-2000:] or done.stdout[-2000:]}")
        return done

    def ask(self, *words: str) -> Any:
        """The JSON that a command of the product answers."""
        return json.loads(self.run(*words, "--json").stdout)

    def waiting(self) -> Mapping[str, int]:
        """Messages that are spooled at an edge, or in a lane and not committed yet, where there are any."""
        from broker.opening import local_usage, waiting_messages
        from runtime.settings import EdgeSettings

        edges = [EdgeSettings(**self._parsed(edge)) for edge in self.edges]
        spooled = {
            f"{settings.data_dir.name}'s spool": sum(local_usage(settings).uncommitted_messages.values())
            for settings in edges
        }
        lanes = {lane.value: messages for lane, messages in waiting_messages(edges[0]).items()}
        return {place: messages for place, messages in (spooled | lanes).items() if messages}

    def drained(self, timeout_s: float = 120.0) -> None:
        """Wait until nothing waits. AssertionError if that does not come true."""
        ends_s = time.monotonic() + timeout_s
        while left := self.waiting():
            assert time.monotonic() < ends_s, f"messages still wait after {timeout_s:g} s: {left}"
            time.sleep(0.2)

    def edge_role(self, number: int) -> Role:
        """The role of an edge; for one that is not there yet, on a free port."""
        while len(self.dicom_ports) <= number:
            self.dicom_ports += free_ports(1)
        settings = {
            **self._common(EDGE),
            "SANSFILM_DICOM_PORT": str(self.dicom_ports[number]),
            "SANSFILM_ACK_MODE": self.shape.ack_mode,
        }
        awaits = ("edge", "forwarder") if self.shape.ack_mode == "spool" else ("edge",)
        return self._role("edge", f"edge-{number}", settings, awaits=awaits)

    def worker_role(self, number: int, lanes: Sequence[Lane], *, niceness: int = 0) -> Role:
        """The role of a worker that takes `lanes`."""
        settings = {**self._common(WORKER), "SANSFILM_LANES": json.dumps([lane.value for lane in lanes])}
        return self._role("worker", f"worker-{number}", settings, niceness=niceness)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_roles(self) -> None:
        web = {**self._common(WORKER), "SANSFILM_HTTP_PORT": str(self.http_port)}
        self.web = self._role("web", "web", web)
        self.keeper = self._role("keeper", "keeper", self._common(WORKER))
        self.edges = [self.edge_role(number) for number in range(self.shape.edges)]
        self.workers = [
            self.worker_role(number, worker.lanes, niceness=worker.niceness)
            for number, worker in enumerate(self.shape.workers)
        ]

    def _role(
        self, word: str, name: str, settings: Mapping[str, str], *, awaits: Sequence[str] = (), niceness: int = 0
    ) -> Role:
        folder = self.folder / name
        clock = {CLOCK_VARIABLE: str(folder / CLOCK)} if self.shape.own_clocks else {}
        return Role([word], folder, {**settings, **clock}, awaits=awaits or [word], niceness=niceness)

    def _common(self, identity: Identity) -> dict[str, str]:
        return {
            "SANSFILM_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "SANSFILM_CATALOG_URL": self._catalog_url(),
            "SANSFILM_STORE_URL": f"s3://{_BUCKET}/{_PREFIX}",
            "SANSFILM_S3_ENDPOINT": self.s3.endpoint,
            "SANSFILM_S3_ACCESS_KEY_ID": identity.access_key_id,
            "SANSFILM_S3_SECRET_ACCESS_KEY": identity.secret_access_key,
            "SANSFILM_DISK_RESERVE_BYTES": "0",
            **self.shape.settings,
        }

    def _catalog_url(self) -> str:
        return self.postgres.url("postgres")

    def _parsed(self, role: Role) -> dict[str, Any]:
        names = ("DATA_DIR", "KAFKA_BOOTSTRAP")
        return {name.lower(): role.settings[f"SANSFILM_{name}"] for name in names}
