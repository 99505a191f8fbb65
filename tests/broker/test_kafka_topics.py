"""Topics of the log on a real broker: made, repaired, checked; and the janitor that empties them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import Result
from confluent_kafka import Producer, TopicPartition
from typer.testing import CliRunner

from broker.kafka import KafkaConfiguration, KafkaConsumer
from broker.kafka.janitor import delete_committed
from broker.kafka.topics import LogTopics
from broker.kafka.watermark import is_past, mark
from cli.main import app
from region.kafka import KafkaBroker
from runtime.clock import SystemClock
from runtime.errors import Misconfigured
from schemas.message import Lane
from tests.broker.contract import take_all
from tests.broker.test_kafka_group import fill, member
from tests.region.kafka import fresh, set_of_topic
from tests.waiting import until

runner = CliRunner()


@pytest.fixture
def log(kafka: KafkaBroker) -> KafkaConfiguration:
    return fresh(kafka, partitions=2)


def texts(log: KafkaConfiguration, **options: bool) -> list[str]:
    found = LogTopics(log).check(replication=1, **options)
    return [f"{finding.level}: {finding.topic.removeprefix(log.prefix)} {finding.text}" for finding in found]


def test_what_was_applied_has_no_findings(log: KafkaConfiguration) -> None:
    assert texts(log, allow_single=True) == []
    assert LogTopics(log).apply(partitions=2, replication=1) == []
    assert texts(log) == [
        f"warning: {topic} has one replica: with its broker's disk, acknowledged messages are lost (--allow-single)"
        for topic in (".urgent", ".routine", ".bulk", ".events", ".torn")
    ]


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("retention.ms", "604800000", "-1"),
        ("retention.bytes", "1000000", "-1"),
        ("cleanup.policy", "compact", "delete"),
        ("max.message.bytes", "1000012", "2097152"),
        ("unclean.leader.election.enable", "true", "false"),
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
    ],
)
def test_what_could_lose_or_truncate_is_an_error_and_is_repaired(
    log: KafkaConfiguration, setting: str, value: str, wanted: str
) -> None:
    set_of_topic(log, log.topic(Lane.BULK), setting, value)
    until(lambda: texts(log, allow_single=True) == [f"error: .bulk {setting} is {value}, not {wanted}"])
    done = LogTopics(log).apply(partitions=2, replication=1)
    assert done == [f"{log.topic(Lane.BULK)}: {setting} was {value} and is {wanted}"]
    until(lambda: texts(log, allow_single=True) == [])


def test_larger_limits_are_left(log: KafkaConfiguration) -> None:
    set_of_topic(log, log.topic(Lane.BULK), "max.message.bytes", "50000000")
    assert LogTopics(log).apply(partitions=2, replication=1) == []


def test_partitions_are_added_and_never_lowered(log: KafkaConfiguration) -> None:
    assert LogTopics(log).apply(partitions=1, replication=1) == []
    done = LogTopics(log).apply(partitions=3, replication=1)
    assert f"{log.topic(Lane.URGENT)}: 2 partitions became 3" in done
    assert len(LogTopics(log).reach(Lane.URGENT)) == 3
    assert texts(log, allow_single=True) == []
    few = LogTopics(log).check(partitions=4, replication=1, allow_single=True)
    assert {(finding.level, finding.text.split(":")[0]) for finding in few} == {("warning", "has 3 partitions, not 4")}


def test_missing_topics_are_errors(kafka: KafkaBroker) -> None:
    log = KafkaConfiguration(bootstrap=kafka.bootstrap, prefix="nowhere")
    assert len(texts(log)) == 5
    assert texts(log)[0] == "error: .urgent is missing: run sansfilm topics apply"


def test_more_replicas_than_brokers_is_said_in_a_sentence(kafka: KafkaBroker) -> None:
    log = KafkaConfiguration(bootstrap=kafka.bootstrap, prefix="nowhere")
    with pytest.raises(Misconfigured, match="fewer brokers than replicas; give --replication"):
        LogTopics(log).apply(partitions=1, replication=3)


def test_messages_deleted_before_they_were_committed_are_an_error(log: KafkaConfiguration) -> None:
    fill(log, range(40))
    place = TopicPartition(log.topic(Lane.ROUTINE), 0)
    LogTopics(log).delete_before({place: 3})
    assert texts(log, allow_single=True) == [
        "error: .routine/0 messages 0 to 2 were deleted before they were committed"
    ]


def test_an_edge_whose_clock_is_ahead_is_heard(log: KafkaConfiguration) -> None:
    """Kafka refuses what is dated more than an hour ahead, unless it dates it itself."""
    told: list[object] = []
    producer = Producer(log.producer(Lane.ROUTINE))
    ahead_ms = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1000)
    producer.produce(log.topic(Lane.ROUTINE), b"x", timestamp=ahead_ms, on_delivery=lambda error, _: told.append(error))
    assert producer.flush(20) == 0
    assert told == [None]


class Later(SystemClock):
    """A clock that is ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


def test_the_janitor_deletes_what_is_committed_and_old(log: KafkaConfiguration) -> None:
    fill(log, range(40))
    with member(log) as consumer:
        taken = take_all(consumer, 40)
        done = [one.position for one in taken[:25]]
        consumer.commit(done)
    committed = sum(reach.committed or 0 for reach in LogTopics(log).reach(Lane.ROUTINE).values())
    nothing = dict.fromkeys(Lane, 0)

    assert delete_committed(log, keep_s=3600) == nothing
    assert delete_committed(log, keep_s=3600, clock=Later(timedelta(hours=2))) == {**nothing, Lane.ROUTINE: committed}
    assert all(reach.first == reach.committed for reach in LogTopics(log).reach(Lane.ROUTINE).values())
    assert delete_committed(log, keep_s=3600, clock=Later(timedelta(hours=2))) == nothing
    with member(log) as consumer:
        assert len(take_all(consumer, 40 - committed)) == 40 - committed


def test_the_janitor_keeps_what_is_young_and_what_no_group_has_committed(log: KafkaConfiguration) -> None:
    set_of_topic(log, log.topic(Lane.BULK), "message.timestamp.type", "CreateTime")  # we say how old they are
    producer = Producer({"bootstrap.servers": log.bootstrap})
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for number in range(10):  # the first four are two hours old
        age_ms = 7_200_000 if number < 4 else 0
        producer.produce(log.topic(Lane.BULK), b"x", partition=0, timestamp=now_ms - age_ms)
    assert producer.flush(20.0) == 0

    assert delete_committed(log, keep_s=3600)[Lane.BULK] == 0
    commit_all(log)
    assert delete_committed(log, keep_s=3600)[Lane.BULK] == 4


def commit_all(log: KafkaConfiguration) -> None:
    """The bulk lane's group, at the end of its topic."""
    consumer = KafkaConsumer(log, lane=Lane.BULK)
    until(lambda: not consumer.take(max_messages=99, max_bytes=10**6, wait_s=0.1) and ends(log))
    consumer.close()


def ends(log: KafkaConfiguration) -> bool:
    return all(reach.committed == reach.end for reach in LogTopics(log).reach(Lane.BULK).values())


def run(*words: str, code: int = 0) -> Result:
    result = runner.invoke(app, ["topics", *words])
    assert result.exit_code == code, result.output
    return result  # type: ignore[return-value]


def test_the_command_makes_checks_and_refuses(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANSFILM_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("SANSFILM_KAFKA_TOPIC_PREFIX", "by-command")
    single = ("--replication", "1", "--allow-single")

    assert "error: by-command.bulk is missing" in run("check", *single, code=1).stdout
    made = run("apply", "--partitions", "2", *single).stdout
    assert "by-command.bulk: made, with 1 replica of each partition" in made
    assert run("check", *single).stdout == "the topics are as they should be\n"
    assert json.loads(run("check", *single, "--json").stdout) == {"done": [], "findings": []}

    log = KafkaConfiguration(bootstrap=kafka.bootstrap, prefix="by-command")
    set_of_topic(log, "by-command.bulk", "retention.ms", "1000")
    until(lambda: runner.invoke(app, ["topics", "check", *single]).exit_code == 1)
    found = json.loads(run("check", *single, "--json", code=1).stdout)["findings"]
    assert found == [{"level": "error", "topic": "by-command.bulk", "text": "retention.ms is 1000, not -1"}]


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANSFILM_KAFKA_BOOTSTRAP", raising=False)
    assert "set SANSFILM_KAFKA_BOOTSTRAP" in run("check", code=2).output


def test_a_mark_is_past_when_everything_before_it_is_committed(log: KafkaConfiguration) -> None:
    fill(log, range(40))
    before = mark(log)
    assert sum(before.values()) == 40
    assert is_past(log, dict.fromkeys(before, 0))
    with member(log) as consumer:
        taken = take_all(consumer, 40)
        consumer.commit([one.position for one in taken[:-1]])
        assert not is_past(log, before)
        consumer.commit([one.position for one in taken])
    fill(log, range(40, 50))
    assert is_past(log, before)
    assert not is_past(log, mark(log))
