"""Events come out of the outbox at least once, in order, with stable ids; no row goes before Kafka has its events."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from archive.keeping import DutyLock, open_postgres_keeping
from archive.postgres import Bounds
from broker.kafka import KafkaConfiguration
from broker.kafka.events import EventPublisher
from broker.kafka.topics import LogTopics
from keeper.relay import Relay
from region.kafka import KafkaBroker
from runtime.errors import Retryable
from schemas.events import EVENTS, Event, InstanceCommitted, json_schema
from tests.archive.samples import TENANT, member, unfileable
from tests.datasets import mr_dataset
from tests.keeper.site import LaterClock, Site
from tests.region.kafka import fresh

STUDY = str(mr_dataset(1).StudyInstanceUID)


@pytest.fixture
def log(kafka: KafkaBroker) -> KafkaConfiguration:
    return fresh(kafka)


def relay(site: Site, deliver: Any, ahead: timedelta = timedelta(), **given: Any) -> Relay:
    clock = LaterClock(ahead)
    known: dict[str, Any] = {"rows_max": 2, "stable_after": timedelta(minutes=1), "is_stopping": lambda: False}
    catalog = open_postgres_keeping(site.url, clock=clock)
    return Relay(catalog=catalog, deliver=deliver, clock=clock, **{**known, **given})


def publish(site: Site, log: KafkaConfiguration, ahead: timedelta = timedelta()) -> None:
    """One round."""
    with closing(EventPublisher(log)) as publisher:
        one = relay(site, publisher.publish, ahead)
        with closing(one.catalog):
            one.run()


def received(log: KafkaConfiguration) -> Iterator[tuple[dict[str, str], dict[str, Any], str]]:
    """Everything in the topic of events: headers, data, key."""
    consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    with closing(consumer):
        at = TopicPartition(log.events_topic, 0, 0)
        _, end = consumer.get_watermark_offsets(at)
        consumer.assign([at])
        while end and (record := consumer.poll(10)) is not None:
            headers = {name: value.decode() for name, value in record.headers() or ()}  # type: ignore[union-attr, misc]
            yield headers, json.loads(record.value() or b""), (record.key() or b"").decode()  # type: ignore[arg-type, union-attr]
            if (record.offset() or 0) + 1 == end:
                return


def waiting(site: Site) -> int:
    return site.keeping.waiting_events().rows


def test_what_was_committed_is_told(site: Site, log: KafkaConfiguration) -> None:
    first, other = member(mr_dataset(1)), member(mr_dataset(1, seed=7), message_id="other")
    site.take(first, member(mr_dataset(2)), unfileable("q1"))
    site.take(other)
    site.take(first, unfileable("q1"))
    publish(site, log)
    told = list(received(log))
    assert [(h["ce_type"], h["ce_id"], d.get("verdict")) for h, d, _ in told] == [
        ("sansfilm.instance.committed.v1", f"id-{mr_dataset(1).SOPInstanceUID}", "new"),
        ("sansfilm.instance.committed.v1", f"id-{mr_dataset(2).SOPInstanceUID}", "new"),
        ("sansfilm.instance.quarantined.v1", "q1", None),
        ("sansfilm.instance.committed.v1", "other", "conflict"),
    ]
    headers, data, key = told[0]
    assert (headers["ce_specversion"], headers["content-type"]) == ("1.0", "application/json")
    assert (headers["ce_source"], headers["ce_tenant"]) == ("/tenants/default/instance/committed", TENANT)
    assert key == f"{TENANT}/{STUDY}"
    assert data["sop_instance_uid"] == str(mr_dataset(1).SOPInstanceUID)
    assert data["wire_sha256"] == first.record.wire_sha256
    assert waiting(site) == 0
    for headers, data, _ in told:
        (schema,) = (json_schema(event) for event in EVENTS if event.type == headers["ce_type"])
        assert list(data) == schema["required"]
        assert not any("DOE" in str(value) for value in data.values())


def test_a_study_is_stable_once_nothing_came_for_a_while(site: Site, log: KafkaConfiguration) -> None:
    site.take(member(mr_dataset(1)))
    publish(site, log)
    publish(site, log, timedelta(minutes=2))
    publish(site, log, timedelta(minutes=4))
    stable = [(h, d) for h, d, _ in received(log) if h["ce_type"] == "sansfilm.study.stable.v1"]
    ((headers, data),) = stable
    assert headers["ce_id"] == f"{STUDY}@{data['changed_at']}"
    assert (data["study_instance_uid"], data["series"], data["instances"]) == (STUDY, 1, 1)
    site.take(member(mr_dataset(2)))
    publish(site, log, timedelta(minutes=6))
    again = [d["instances"] for h, d, _ in received(log) if h["ce_type"] == "sansfilm.study.stable.v1"]
    assert again == [1, 2]


def test_what_kafka_did_not_take_stays(site: Site) -> None:
    site.take(member(mr_dataset(1)))
    away = KafkaConfiguration(bootstrap="127.0.0.1:1", delivery_timeout_s=1.0)
    with pytest.raises(Retryable):
        publish(site, away)
    assert waiting(site) == 1


def test_two_at_once_take_different_rows(site: Site) -> None:
    """Whoever comes second passes by the rows that the first one holds."""
    for number in range(1, 5):
        site.take(member(mr_dataset(number)))
    told: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def slowly(events: Sequence[Event]) -> None:
        inside.set()
        assert done.wait(30)
        told.extend(event.id for event in events)

    one = relay(site, slowly)
    thread = threading.Thread(target=one.run)
    thread.start()
    assert inside.wait(30)
    other = relay(site, lambda events: told.extend(event.id for event in events))
    other.run()
    assert len(told) == 2
    done.set()
    thread.join(30)
    assert sorted(told) == sorted(f"id-{mr_dataset(number).SOPInstanceUID}" for number in range(1, 5))
    for used in (one, other):
        used.catalog.close()


def test_a_row_of_the_program_before_is_passed_by(site: Site) -> None:
    site.take(member(mr_dataset(1)))
    with psycopg.connect(site.url) as connection:
        connection.execute("UPDATE outbox SET type = 'sansfilm.study.changed.v1'")
    told: list[Event] = []
    one = relay(site, told.extend)
    with closing(one.catalog):
        one.run()
    assert (told, waiting(site)) == ([], 0)


@pytest.mark.parametrize(("point", "left"), [("relay.published", 1), ("relay.deleted", 0)])
def test_a_killed_relay_repeats_and_loses_nothing(
    site: Site, log: KafkaConfiguration, tmp_path: Path, point: str, left: int
) -> None:
    site.take(member(mr_dataset(1)), member(mr_dataset(2)))
    given = {"KAFKA_BOOTSTRAP": log.bootstrap, "KAFKA_TOPIC_PREFIX": log.prefix}
    site.run_until_killed(tmp_path, point, **given)
    assert waiting(site) == left
    publish(site, log)
    told = [h["ce_id"] for h, _, _ in received(log) if h["ce_type"] == InstanceCommitted.type]
    wanted = [f"id-{mr_dataset(number).SOPInstanceUID}" for number in (1, 2)]
    assert told == wanted * (1 + left)
    assert waiting(site) == 0


def test_one_keeper_at_a_time_has_a_duty(site: Site) -> None:
    mine, theirs, other = (DutyLock(site.url, duty, Bounds()) for duty in ("relay", "relay", "collect"))
    assert (mine.is_ours(), theirs.is_ours(), other.is_ours()) == (True, False, True)
    assert (mine.is_ours(), theirs.is_ours()) == (True, False)
    mine.close()
    assert theirs.is_ours()
    for lock in (theirs, other):
        lock.close()


def test_the_topic_of_events_may_expire(log: KafkaConfiguration) -> None:
    topics = LogTopics(log)
    assert [found.level for found in topics.check(replication=1, allow_single=True)] == []
    assert log.events_topic in topics.names
