"""What the web role says of its machine while nothing else runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.local import LocalConsumer, LocalPublisher
from dicomweb.machine import Machine
from runtime.errors import Retryable
from runtime.health import HealthServer
from runtime.roll import Roll
from runtime.settings import WebSettings
from schemas.message import Lane, Message
from tests.archive.house import House
from tests.archive.samples import StepClock, attributes, member, unfileable
from tests.datasets import mr_dataset


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def settings(house: House) -> WebSettings:
    return WebSettings(data_dir=house.folder, disk_reserve_bytes=1000)  # type: ignore[call-arg]


def said(machine: Machine) -> Mapping[str, float]:
    """Samples by name and label."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(machine.page().decode())
        for sample in family.samples
    }


def test_what_waits_is_counted_while_no_worker_runs(house: House) -> None:
    clock = StepClock(datetime(2026, 3, 1, 8, 17, tzinfo=UTC))
    machine = Machine(settings(house), house.reader, clock)
    publisher = LocalPublisher(house.folder / "log", writer="edge-1")
    for number in range(3):
        publisher.publish(Message(attributes=attributes(f"m{number}"), value=b"a file")).result(10)
    values = said(machine)
    assert values["sansfilm_waiting_messages routine"] == 3
    assert values["sansfilm_waiting_messages urgent"] == 0
    assert values["sansfilm_waiting_oldest_seconds routine"] == pytest.approx(120, abs=1)
    assert values["sansfilm_waiting_oldest_seconds urgent"] == 0
    assert values["sansfilm_disk_needed_bytes"] == pytest.approx(1000 + 1.1 * values["sansfilm_waiting_bytes"])
    assert values["sansfilm_disk_free_bytes"] > 0
    consumer = LocalConsumer(house.folder / "log", lane=Lane.ROUTINE)
    taken = consumer.take(max_messages=9, max_bytes=10**6, wait_s=5)
    consumer.commit([one.position for one in taken])
    consumer.close()
    values = said(machine)
    assert values["sansfilm_waiting_messages routine"] == values["sansfilm_waiting_oldest_seconds routine"] == 0
    publisher.close()


def test_what_needs_somebody_is_counted(house: House) -> None:
    house.take(member(mr_dataset(1)), unfileable("q-1"), unfileable("q-2"))
    house.take(member(mr_dataset(1, seed=9), message_id="other"))
    values = said(Machine(settings(house), house.reader))
    assert values["sansfilm_quarantine_open_entries"] == 2
    assert values["sansfilm_conflict_instances"] == 1


def test_what_cannot_be_asked_for_is_no_old_value(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(tenant: str) -> Mapping[str, int]:
        raise Retryable("the catalog is away")

    machine = Machine(settings(house), house.reader)
    assert said(machine)["sansfilm_quarantine_open_entries"] == 0
    monkeypatch.setattr(house.reader, "counters", away)
    values = said(machine)
    assert math.isnan(values["sansfilm_quarantine_open_entries"])
    assert values["sansfilm_waiting_messages routine"] == 0


def test_a_process_in_a_loop_of_restarts_is_seen(house: House) -> None:
    run_dir = settings(house).run_dir
    roll = Roll(run_dir, ["edge-0", "worker-0"])
    edge = HealthServer(run_dir, "edge")
    roll.restarted("worker-0")
    values = said(Machine(settings(house), house.reader))
    assert (values["sansfilm_process_up edge-0"], values["sansfilm_process_up worker-0"]) == (1, 0)
    assert values["sansfilm_process_restarts worker-0"] == 1
    roll.close()
    edge.close()
    assert "sansfilm_process_up edge-0" not in said(Machine(settings(house), house.reader))
