"""Apache Kafka in KRaft mode: one broker, or several as one cluster. The jars come with ``make kafka``."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from region.ports import free_ports
from runtime.lifecycle import die_with_parent

JARS = Path(__file__).parents[1] / "kafka"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05
#: Large records are humongous to G1; the parallel collector costs the broker a third less.
_JVM = ("-XX:+UseParallelGC", "-Xshare:auto", "-Dlog4j2.disable.jmx=true")
#: What the broker knows its users by.
SCRAM = ("SCRAM-SHA-512", "SCRAM-SHA-256")
_QUICK = ("-XX:TieredStopAtLevel=1",)


class NotStarted(Exception):
    """The broker did not answer in time, or ended; its last words are in the message."""


class KafkaBroker:
    """One broker. Alone it is its own controller, and internal topics have one replica."""

    def __init__(
        self,
        folder: Path,
        *,
        node: int = 1,
        ports: tuple[int, int] | None = None,
        voters: str = "",
        cluster_id: str = "",
        replicas: int = 1,
        heap_mib: int = 384,
        quick: bool = False,
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        """Starts nothing yet. `ports` are the broker's and its controller's; `settings` go over the defaults.

        `quick` compiles less: up sooner, slower under load. `users` are names and passwords that SCRAM knows from the
        first start on, for listeners that `settings` add.
        """
        self._folder = folder
        self._port, controller_port = ports or free_ports(2)
        self._cluster_id = cluster_id or new_cluster_id()
        self._jvm = (f"-Xms{heap_mib}m", f"-Xmx{heap_mib}m", *_JVM, *(_QUICK if quick else ()))
        self._process: subprocess.Popen[bytes] | None = None
        self._users = dict(users or {})
        voters = voters or f"{node}@127.0.0.1:{controller_port}"
        self._settings = {
            **_settings(folder, node, self._port, controller_port, voters, replicas),
            **(settings or {}),
        }

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, on the data that is there, and wait until clients are answered.

        Raises:
            NotStarted: it did not answer within a minute, or ended.
        """
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start without waiting."""
        if not any(JARS.glob("*.jar")):
            raise NotStarted("Kafka's jars are missing: run make kafka")
        self._folder.mkdir(parents=True, exist_ok=True)
        properties = self._folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        if not (self._folder / "data").exists():
            tool = self._java("kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(properties))
            subprocess.run(
                [*tool, *self._scram()], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60
            )
        parent = os.getpid()
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(properties)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def await_answer(self) -> None:
        """Wait until the broker serves clients.

        Raises:
            NotStarted: see `start`.
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        assert self._process is not None
        quiet: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap,
            "log_level": 0,
            "reconnect.backoff.max.ms": 200,
        }
        admin = AdminClient(quiet)
        ends_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < ends_s and self._process.poll() is None:
            try:
                if admin.list_topics(timeout=1.0).brokers:
                    return
            except KafkaException:
                time.sleep(_POLL_S)
        raise NotStarted(f"Kafka did not start: {self._last_words()}")

    def kill(self) -> None:
        """SIGKILL, and wait for the end; `start` goes on with the same data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop in order; kill what has not ended after half a minute. May be called again."""
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _java(self, *arguments: str) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise NotStarted("java was not found: install a Java 17 runtime (make kafka does it for root on Debian)")
        return [java, *self._jvm, "-cp", f"{JARS}/*", *arguments]

    def _scram(self) -> list[str]:
        """The users as the storage tool takes them."""
        return [
            word
            for name, password in self._users.items()
            for mechanism in SCRAM
            for word in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]

    def _last_words(self) -> str:
        path = self._folder / "broker.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else "it said nothing"


class KafkaCluster:
    """Several brokers, each a controller too; internal topics have as many replicas as there are brokers, at most 3."""

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 3,
        heap_mib: int = 256,
        quick: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Starts nothing yet; the arguments are those of `KafkaBroker`."""
        ports = free_ports(2 * count)
        pairs = list(zip(ports[::2], ports[1::2], strict=True))
        voters = ",".join(f"{node}@127.0.0.1:{pair[1]}" for node, pair in enumerate(pairs, 1))
        cluster_id = new_cluster_id()
        self.brokers: Sequence[KafkaBroker] = [
            KafkaBroker(
                folder / f"broker-{node}",
                node=node,
                ports=pair,
                voters=voters,
                cluster_id=cluster_id,
                replicas=min(3, count),
                heap_mib=heap_mib,
                quick=quick,
                settings=settings,
            )
            for node, pair in enumerate(pairs, 1)
        ]

    @property
    def bootstrap(self) -> str:
        """``host:port,...`` of all brokers."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> None:
        """Start every broker, then wait for each.

        Raises:
            NotStarted: one did not answer.
        """
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.await_answer()

    def stop(self) -> None:
        """Stop every broker, all at once: one alone would wait for a quorum."""
        with ExitStack() as stack:
            threads = [threading.Thread(target=broker.stop) for broker in self.brokers]
            for thread in threads:
                thread.start()
                stack.callback(thread.join)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def new_cluster_id() -> str:
    """A UUID as Kafka writes it; never one that reads as an option on a command line."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return text.replace("-", "A", 1) if text.startswith("-") else text


def _settings(folder: Path, node: int, port: int, controller_port: int, voters: str, replicas: int) -> dict[str, str]:
    """Loopback only, nothing made by itself, and groups that notice a dead member within seconds."""
    in_sync = str(min(2, replicas))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(replicas),
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.consumer.min.session.timeout.ms": "6000",
        "group.consumer.session.timeout.ms": "6000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "broker.session.timeout.ms": "2000",  # a killed broker may come back that soon
        "broker.heartbeat.interval.ms": "500",
        "log.cleaner.dedupe.buffer.size": "8388608",  # of 128 MiB most of a small heap would be
        "log.segment.delete.delay.ms": "1000",
    }
