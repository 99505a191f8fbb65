"""`sansfilm edge` whose Kafka is away or refuses it: it is ready, answers from its spool, and ships later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker.kafka.topics import LogTopics
from broker.opening import kafka_configuration, waiting_messages
from region.ports import free_ports
from region.role import Role
from runtime.settings import WorkerSettings
from schemas.message import Lane
from tests.datasets import MR_IMAGE_STORAGE, dataset_bytes, mr_dataset
from tests.ingest.peers import EXPLICIT_LE, Peer
from tests.region.guarded import PASSWORD, USER, Guarded
from tests.region.proxy import Proxy
from tests.waiting import until

WRONG = "wrong-planted-5d1"
TIMEOUT_S = 40.0
Starting = Callable[[dict[str, Any]], Role]


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Starting]:
    """Starts the edge of one folder with settings, and awaits it; the one before is killed, as by a reset."""
    started: list[Role] = []

    def start(given: dict[str, Any]) -> Role:
        kill(started)
        (port,) = free_ports(1)
        changes = {"dicom_port": port, "disk_reserve_bytes": 0, **given}
        settings = {f"SANSFILM_{name.upper()}": str(value) for name, value in changes.items()}
        started.append(Role(["edge"], tmp_path / "edge", settings, awaits=["edge", "forwarder"]))
        started[-1].start()
        until(lambda: f"on 127.0.0.1:{port}" in started[-1].last_words(), what="the word of the supervisor")
        return started[-1]

    yield start
    kill(started)


def kill(roles: list[Role]) -> None:
    for role in roles:
        role.kill()


def send(edge: Role, number: int) -> int:
    """C-STORE one instance; gives the status."""
    dataset = mr_dataset(number, rows=16, columns=16)
    with Peer(int(edge.settings["SANSFILM_DICOM_PORT"])) as peer:
        assert peer.associate((1, MR_IMAGE_STORAGE, (EXPLICIT_LE,)))
        return peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status


def logged(edge: Role, event: str) -> list[dict[str, Any]]:
    """Those lines of the forwarder's log."""
    path = edge.folder / "logs" / "forwarder-0.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if line["event"] == event]


def wrong_password(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_password=WRONG)


def unknown_authority(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_ca_file=str(guarded.stranger.path))


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        (wrong_password, f"the broker refused the credentials of user {USER}: set SANSFILM_KAFKA_USER"),
        (unknown_authority, "the broker's certificate is not signed by "),
    ],
)
def test_an_edge_that_kafka_refuses_receives_and_ships_once_it_is_taken(
    way: Callable[[Guarded], dict[str, Any]], sentence: str, guarded: Guarded, edge: Starting
) -> None:
    prefix = {"kafka_topic_prefix": f"t-{uuid4().hex[:12]}"}
    settings = WorkerSettings(**guarded.by_password(**prefix))
    LogTopics(kafka_configuration(settings)).apply(partitions=1, replication=1)

    refused = edge({**way(guarded), **prefix})
    (told, *_) = until(lambda: logged(refused, "kafka_refused"), timeout_s=TIMEOUT_S)
    assert told["level"] == "error"
    assert sentence in told["message"]
    assert send(refused, 1) == 0
    assert refused.is_running
    assert not logged(refused, "role_failed")
    assert waiting_messages(settings)[Lane.ROUTINE] == 0

    taken = edge({**guarded.by_password(), **prefix})
    until(lambda: waiting_messages(settings)[Lane.ROUTINE] == 1, timeout_s=TIMEOUT_S, what="the message in Kafka")
    assert taken.stop() == 0
    written = "".join(path.read_text() for path in (taken.folder / "logs").iterdir())
    assert not [secret for secret in (WRONG, PASSWORD) if secret in written + taken.last_words()]


def test_an_edge_behind_a_load_balancer_without_brokers_receives(guarded: Guarded, edge: Starting) -> None:
    with Proxy(free_ports(1)[0]) as proxy:
        alone = edge(guarded.by_password(kafka_bootstrap=f"127.0.0.1:{proxy.port}"))
        assert send(alone, 1) == 0
        until(lambda: logged(alone, "kafka_unavailable"), timeout_s=TIMEOUT_S)
        assert not logged(alone, "kafka_refused")
        assert alone.is_running
