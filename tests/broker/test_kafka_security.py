"""TLS and credentials: what the settings may not say, and what a real broker refuses, told in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from structlog.testing import capture_logs
from typer.testing import CliRunner

from broker.kafka import KafkaConfiguration, KafkaPublisher
from broker.kafka.errors import refusal_of
from broker.kafka.events import EventPublisher
from broker.kafka.janitor import delete_committed
from broker.kafka.stretch import StretchReader, find_spans
from broker.kafka.topics import LogTopics
from broker.kafka.watermark import is_past, mark
from broker.log import Taken
from broker.opening import kafka_configuration, open_consumer, open_publisher, waiting_messages
from cli.main import app
from region.ports import free_ports
from region.role import Role
from runtime.errors import Misconfigured, Retryable
from runtime.settings import WorkerSettings
from schemas.events import StudyStable
from schemas.message import Lane
from tests.broker.contract import TIMEOUT_S, numbers, publish, take_all
from tests.broker.messages import instance
from tests.region.certificates import Authority, Certified
from tests.region.guarded import KEY_PASSWORD, PASSWORD, USER, Guarded
from tests.region.proxy import Proxy
from tests.waiting import until

ELSEWHERE = "kafka-0:9092,kafka-1:9092"
USER_AND_PASSWORD = {"kafka_user": USER, "kafka_password": PASSWORD}
SECRETS = (PASSWORD, KEY_PASSWORD)
WRONG = "wrong-planted-2b8"
STABLE = StudyStable(
    id="1.2@x", tenant="default", time="t", study_instance_uid="1.2", changed_at="x", series=1, instances=1
)


def configured(**given: Any) -> KafkaConfiguration:
    return kafka_configuration(WorkerSettings(**{"kafka_bootstrap": "127.0.0.1:9092", **given}))


def refused(**given: Any) -> str:
    """What is said of these settings; no password, one line, and nothing behind it."""
    with pytest.raises(Misconfigured) as told:
        configured(**given)
    assert told.value.__cause__ is None
    return without_secrets(str(told.value))


def without_secrets(text: str) -> str:
    assert not [secret for secret in (*SECRETS, WRONG) if secret in text]
    assert "\n" not in text.strip()
    return text


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "localhost:9092,[::1]:9093", "::1", "127.0.0.9"])
def test_on_this_machine_nothing_is_asked_for(bootstrap: str) -> None:
    assert configured(kafka_bootstrap=bootstrap).admin()["security.protocol"] == "plaintext"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "names kafka-0, which is not this machine, .* plaintext encrypts nothing: set sasl_ssl or ssl"),
        ({"kafka_security_protocol": "sasl_plaintext", **USER_AND_PASSWORD}, "sasl_plaintext encrypts nothing"),
        ({"kafka_security_protocol": "ssl"}, "does not tell the brokers who calls: set SANSFILM_KAFKA_CERTIFICATE_F"),
    ],
)
@pytest.mark.parametrize(
    "bootstrap", [ELSEWHERE, "127.0.0.1:9092,kafka-0:9092", "SSL://kafka-0:9092", "[::1]:1,kafka-0"]
)
def test_other_machines_are_closed_by_default(bootstrap: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        configured(kafka_bootstrap=bootstrap, **given)
    assert configured(kafka_bootstrap=bootstrap, insecure_demo=True, **given).bootstrap == bootstrap


def test_other_machines_are_open_with_tls_and_credentials() -> None:
    security = configured(kafka_bootstrap=ELSEWHERE, kafka_security_protocol="sasl_ssl", **USER_AND_PASSWORD).security
    assert security.client() == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.endpoint.identification.algorithm": "https",
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (USER_AND_PASSWORD, "plaintext has no use for it: set sasl_ssl"),
        ({"kafka_security_protocol": "ssl", "kafka_user": USER}, "ssl has no use for it: set sasl_ssl"),
        (
            {"kafka_security_protocol": "sasl_ssl", "kafka_user": USER},
            "needs SANSFILM_KAFKA_USER and SANSFILM_KAFKA_PASS",
        ),
        ({"kafka_security_protocol": "sasl_plaintext", "kafka_password": PASSWORD}, "sasl_plaintext needs"),
        ({"kafka_ca_file": "ca.pem"}, "plaintext has no use for it: set ssl or sasl_ssl"),
        ({"kafka_security_protocol": "ssl", "kafka_key_file": "a.key"}, "go together: set both"),
    ],
)
def test_what_cannot_be_meant_is_told(given: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(**given)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


@pytest.fixture(scope="module")
def certified(authority: Authority) -> Certified:
    return authority.certify("client", password=KEY_PASSWORD)


@pytest.mark.parametrize("name", ["kafka_ca_file", "kafka_certificate_file", "kafka_key_file"])
def test_a_file_that_cannot_be_read_is_named(name: str, certified: Certified, tmp_path: Path) -> None:
    given = {"kafka_certificate_file": str(certified.certificate), "kafka_key_file": str(certified.key)}
    missing = str(tmp_path / "not-there.pem")
    said = refused(kafka_security_protocol="ssl", **{**given, name: missing})
    assert said == f"SANSFILM_{name.upper()} {missing} cannot be read: No such file or directory"
    assert "cannot be read: Is a directory" in refused(kafka_security_protocol="ssl", **{**given, name: str(tmp_path)})


def test_files_that_hold_something_else_are_named(authority: Authority, certified: Certified) -> None:
    files = {"kafka_certificate_file": str(certified.certificate), "kafka_key_file": str(certified.key)}
    given = {"kafka_security_protocol": "ssl", **files}
    assert configured(**given, kafka_key_password=KEY_PASSWORD).security.certificate_file
    no_authority = refused(kafka_security_protocol="ssl", kafka_ca_file=str(certified.key))
    assert no_authority == f"SANSFILM_KAFKA_CA_FILE {certified.key} holds no certificate in PEM"
    for changes in (
        {},  # the key is encrypted
        {"kafka_key_password": WRONG},
        {"kafka_key_file": str(authority.certify("other").key)},
        {"kafka_certificate_file": str(certified.key), "kafka_key_password": KEY_PASSWORD},
    ):
        assert "are no certificate and its key in PEM, or SANSFILM_KAFKA_KEY_PASSWORD" in refused(
            **{**given, **changes}
        )


# ---- a real broker -------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], WorkerSettings]:
    """Sets what is given as the environment of commands, with topics of their own; gives the settings."""

    def set_all(given: dict[str, Any]) -> WorkerSettings:
        for name, value in {"kafka_topic_prefix": f"t-{uuid4().hex[:12]}", **given}.items():
            monkeypatch.setenv(f"SANSFILM_{name.upper()}", value)
        return WorkerSettings()

    return set_all


def by_password(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password()


def by_certificate(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_certificate()


def by_both(guarded: Guarded) -> dict[str, Any]:
    return {**guarded.by_certificate(), **guarded.by_password()}


def by_plain(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_sasl_mechanism="PLAIN")


def by_sha_256_without_tls(guarded: Guarded) -> dict[str, Any]:
    unencrypted = guarded.by_password(
        kafka_bootstrap=guarded.sasl_plaintext,
        kafka_security_protocol="sasl_plaintext",
        kafka_sasl_mechanism="SCRAM-SHA-256",
    )
    del unencrypted["kafka_ca_file"]
    return unencrypted


@pytest.mark.parametrize("way", [by_password, by_certificate])
def test_every_client_of_the_log_gets_in(
    way: Callable[[Guarded], dict[str, Any]], guarded: Guarded, environment: Callable[[dict[str, Any]], WorkerSettings]
) -> None:
    settings = environment(way(guarded))
    single = ["--replication", "1", "--allow-single"]
    made = CliRunner().invoke(app, ["topics", "apply", "--partitions", "1", *single])
    assert made.exit_code == 0, made.output
    checked = CliRunner().invoke(app, ["topics", "check", *single])
    assert checked.output == "the topics are as they should be\n"

    configuration = kafka_configuration(settings)
    with (
        closing(open_publisher(settings, writer="w")) as publisher,
        closing(open_consumer(settings, Lane.ROUTINE)) as consumer,
    ):
        publish(publisher, map(instance, range(3)))
        taken = take_all(consumer, 3)
        assert numbers(taken) == [0, 1, 2]
        assert waiting_messages(settings)[Lane.ROUTINE] == 3
        before = mark(configuration)
        assert not is_past(configuration, before)
        consumer.commit([one.position for one in taken])
    assert is_past(configuration, before)
    assert delete_committed(configuration, keep_s=0)[Lane.ROUTINE] == 3
    with closing(EventPublisher(configuration)) as events:
        events.publish([STABLE])


@pytest.mark.parametrize("way", [by_both, by_plain, by_sha_256_without_tls])
def test_the_other_ways_get_in_too(way: Callable[[Guarded], dict[str, Any]], guarded: Guarded) -> None:
    assert waiting_messages(WorkerSettings(**way(guarded))) == dict.fromkeys(Lane, 0)


LANES, TORN, EVENTS = [lane.value for lane in Lane], ["torn"], ["events"]
EVERY = [*LANES, *TORN, *EVENTS]
GROUPS = [f"workers-{lane}" for lane in LANES]
#: docs/REGION.md: who may what on which topics, and on which groups.
MAY: dict[str, tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]]] = {
    "edge-1": ({"WRITE": LANES}, {}),
    "pool-1": ({"READ": LANES, "WRITE": TORN}, {"READ": GROUPS}),
    "keeper-1": ({"DESCRIBE": EVERY, "DELETE": LANES, "WRITE": EVENTS}, {"READ": GROUPS}),
    "web-1": ({"DESCRIBE": EVERY}, {"DESCRIBE": GROUPS}),
    "replay-1": ({"DESCRIBE": EVERY, "READ": LANES}, {"DESCRIBE": GROUPS, "READ": ["replay"]}),
    "operator-1": (
        dict.fromkeys(("CREATE", "ALTER", "ALTER_CONFIGS", "DESCRIBE_CONFIGS", "READ"), EVERY),
        {"READ": GROUPS},
    ),
}


def allow(guarded: Guarded, prefix: str) -> None:
    """What the page says that each user needs, and nothing else."""
    wanted = [
        (user, ResourceType.TOPIC, f"{prefix}.{topic}", operation)
        for user, (on_topics, _) in MAY.items()
        for operation, topics in on_topics.items()
        for topic in topics
    ]
    wanted += [
        (user, ResourceType.GROUP, f"{prefix}-{group}", operation)
        for user, (_, on_groups) in MAY.items()
        for operation, groups in on_groups.items()
        for group in groups
    ]
    rules = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for user, kind, name, operation in wanted
    ]
    admin = AdminClient({"bootstrap.servers": guarded.broker.bootstrap})
    for done in admin.create_acls(rules).values():
        done.result(TIMEOUT_S)


def test_what_the_page_lets_each_user_do_is_enough(guarded: Guarded) -> None:
    prefix = f"t-{uuid4().hex[:12]}"
    allow(guarded, prefix)

    def of(user: str) -> WorkerSettings:
        return WorkerSettings(**guarded.by_password(kafka_user=user, kafka_topic_prefix=prefix))

    operator = LogTopics(kafka_configuration(of("operator-1")))
    assert operator.apply(partitions=1, replication=1)
    assert operator.apply(partitions=2, replication=1)
    assert operator.check(partitions=2, replication=1, allow_single=True) == []
    with closing(open_publisher(of("edge-1"), writer="w")) as publisher:
        publish(publisher, map(instance, range(3)))
    stranger = Producer({"bootstrap.servers": guarded.broker.bootstrap})
    stranger.produce(f"{prefix}.routine", b"none of ours", partition=0)
    assert stranger.flush(TIMEOUT_S) == 0
    keeper = kafka_configuration(of("keeper-1"))
    before = mark(keeper)
    assert not is_past(keeper, before)
    with closing(open_consumer(of("pool-1"), Lane.ROUTINE)) as consumer:
        consumer.commit([one.position for one in take_all(consumer, 3)])
        until(lambda: not consumer.take(max_messages=1, max_bytes=1, wait_s=0.1) and not left(of("web-1")))
    assert is_past(keeper, before)
    assert replayed(of("replay-1")) == [0, 1, 2]
    assert delete_committed(keeper, keep_s=0)[Lane.ROUTINE] == 4
    with closing(EventPublisher(keeper)) as events:
        events.publish([STABLE])

    with pytest.raises(Misconfigured, match=r"Kafka refuses it to this user \(TOPIC_AUTHORIZATION_FAILED\)"):
        LogTopics(kafka_configuration(of("edge-1"))).check()


def replayed(settings: WorkerSettings) -> list[int]:
    """What the routine lane holds that is committed, read as a replay reads it."""
    configuration = kafka_configuration(settings)
    spans = find_spans(configuration, Lane.ROUTINE, 0, None)
    taken: list[Taken] = []
    with closing(StretchReader(configuration, spans, silence_max_s=TIMEOUT_S)) as reader:
        while not reader.is_done:
            taken += reader.take(max_messages=9, max_bytes=1 << 24, wait_s=0.2)
    return sorted(numbers(taken))


def left(settings: WorkerSettings) -> int:
    return sum(waiting_messages(settings).values())


def wrong_password(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_password=WRONG)


def wrong_password_plain(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_password=WRONG, kafka_sasl_mechanism="PLAIN")


def unknown_mechanism(guarded: Guarded) -> dict[str, Any]:
    return {**by_sha_256_without_tls(guarded), "kafka_sasl_mechanism": "PLAIN"}


def unknown_authority(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_ca_file=str(guarded.stranger.path))


def unknown_client(guarded: Guarded) -> dict[str, Any]:
    certificate, key = guarded.strange_client.certificate, guarded.strange_client.key
    return guarded.by_certificate(kafka_certificate_file=str(certificate), kafka_key_file=str(key))


def unknown_client_and_password(guarded: Guarded) -> dict[str, Any]:
    return {**unknown_client(guarded), **guarded.by_password(), "kafka_key_password": ""}


def no_certificate(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_certificate(kafka_certificate_file="", kafka_key_file="", kafka_key_password="")


def no_tls_there(guarded: Guarded) -> dict[str, Any]:
    return guarded.by_password(kafka_bootstrap=guarded.broker.bootstrap)


REFUSALS = [
    (wrong_password, f"the broker refused the credentials of user {USER}: set SANSFILM_KAFKA_USER and"),
    (wrong_password_plain, f"the broker refused the credentials of user {USER}"),
    (unknown_mechanism, "does not take passwords by PLAIN: set SANSFILM_KAFKA_SASL_MECHANISM to one of SCRAM-SHA-512,"),
    (unknown_client_and_password, "the broker refused this client's certificate ("),
    (unknown_authority, "the broker's certificate is not signed by "),
    (unknown_client, "the broker refused this client's certificate ("),
    (
        no_certificate,
        "the broker refused this client's certificate (none, where one is wanted): see SANSFILM_KAFKA_CER",
    ),
]


@pytest.mark.parametrize(("way", "sentence"), REFUSALS)
def test_a_refusal_ends_the_command_with_a_sentence(
    way: Callable[[Guarded], dict[str, Any]],
    sentence: str,
    guarded: Guarded,
    environment: Callable[[dict[str, Any]], WorkerSettings],
) -> None:
    settings = environment(way(guarded))
    ended = CliRunner().invoke(app, ["topics", "check", "--json"])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert sentence in without_secrets(ended.stderr)
    without_secrets(repr(kafka_configuration(settings)))


def test_an_address_without_tls_is_named_though_its_brokers_may_be_away(
    guarded: Guarded, environment: Callable[[dict[str, Any]], WorkerSettings]
) -> None:
    environment(no_tls_there(guarded))
    ended = CliRunner().invoke(app, ["topics", "check"])
    assert ended.exit_code == 1
    assert "are away, or do not speak TLS at this address" in without_secrets(ended.stderr)


@pytest.mark.parametrize("opened", ["publisher", "consumer"])
def test_a_refused_end_of_the_log_does_not_open(opened: str, guarded: Guarded) -> None:
    settings = WorkerSettings(**wrong_password(guarded))
    with pytest.raises(Misconfigured, match=f"refused the credentials of user {USER}"):
        if opened == "publisher":
            open_publisher(settings, writer="w")
        else:
            open_consumer(settings, Lane.BULK)


def test_brokers_that_are_away_are_not_a_refusal(guarded: Guarded) -> None:
    settings = WorkerSettings(**guarded.by_password(kafka_bootstrap="127.0.0.1:1"))
    with closing(open_publisher(settings, writer="w")):
        pass  # it connects when they are back


@pytest.fixture
def forwarded() -> Iterator[str]:
    """A port that is forwarded to a broker that is away: it takes connections and ends them. Gives ``host:port``."""
    with Proxy(free_ports(1)[0]) as proxy:
        yield f"127.0.0.1:{proxy.port}"
        assert proxy.connections


@pytest.mark.parametrize("protocol", ["ssl", "sasl_ssl", "sasl_plaintext"])
def test_a_load_balancer_without_brokers_refuses_nobody(protocol: str, forwarded: str) -> None:
    user = USER_AND_PASSWORD if protocol != "ssl" else {}
    settings = WorkerSettings(kafka_bootstrap=forwarded, kafka_security_protocol=protocol, **user)
    with closing(open_publisher(settings, writer="w")):
        pass
    with pytest.raises(Retryable):
        open_consumer(settings, Lane.ROUTINE)


@pytest.mark.parametrize(
    "said",
    [
        "SASL SCRAM-SHA-256 mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms:"
        " (n/a) (after 0ms in state DOWN)",
        "SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure",
        "SASL authentication error: SaslAuthenticateRequest failed: Local: Timed out",
    ],
)
def test_whoever_goes_away_while_told_who_calls_refuses_nobody(said: str) -> None:
    assert refusal_of(KafkaError(KafkaError._AUTHENTICATION, said), configured().security) is None


def test_a_refusal_in_mid_life_is_logged_once_and_told_by_the_future(guarded: Guarded) -> None:
    configuration = kafka_configuration(
        WorkerSettings(**wrong_password(guarded)).model_copy(update={"kafka_topic_prefix": "nowhere"})
    )
    with capture_logs() as logs:
        publisher = KafkaPublisher(configuration, close_timeout_s=0.1)
        future = publisher.publish(instance(1))
        until(lambda: [line for line in logs if line["event"] == "kafka_refused"])
        publisher.close()
        with pytest.raises(Retryable, match=f"refused the credentials of user {USER}"):
            future.result(TIMEOUT_S)
    assert [line["event"] for line in logs].count("kafka_refused") == 1
    without_secrets(json.dumps(logs, default=str))


def test_a_spool_that_is_shipped_by_hand_ends_with_the_sentence(
    guarded: Guarded, environment: Callable[[dict[str, Any]], WorkerSettings], tmp_path: Path
) -> None:
    (tmp_path / "log").mkdir()
    environment(wrong_password(guarded))
    ended = CliRunner().invoke(app, ["spool", "ship", str(tmp_path)])
    assert ended.exit_code == 2
    assert f"refused the credentials of user {USER}" in without_secrets(ended.stderr)


@pytest.fixture
def worker(guarded: Guarded, tmp_path: Path) -> Iterator[Role]:
    """A worker whose password is wrong."""
    settings = {f"SANSFILM_{name.upper()}": value for name, value in wrong_password(guarded).items()}
    role = Role(["worker"], tmp_path / "worker", settings, awaits=["worker"])
    yield role
    role.kill()


def test_a_role_with_a_wrong_password_ends_and_says_so(worker: Role) -> None:
    worker.launch()
    until(lambda: not worker.is_running, timeout_s=30.0, what="the end of the role")
    said = worker.last_words()
    assert f"sansfilm worker: the broker refused the credentials of user {USER}" in said
    assert WRONG not in said
    assert '"kafka_password": "**********"' in said


def test_the_doctor_says_what_the_brokers_say(
    guarded: Guarded, environment: Callable[[dict[str, Any]], WorkerSettings], tmp_path: Path
) -> None:
    environment({**guarded.by_password(), "data_dir": str(tmp_path)})
    assert [one["level"] for one in kafka_findings()] == ["ok"]
    environment(wrong_password(guarded))
    (found,) = kafka_findings()
    assert found["level"] == "bad"
    assert f"refused the credentials of user {USER}" in found["text"]


def kafka_findings() -> list[dict[str, str]]:
    told = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    return [one for one in told["findings"] if one["what"] == "Kafka"]


def test_topics_check_reads_nothing_of_a_refused_log(guarded: Guarded) -> None:
    with pytest.raises(Misconfigured):
        LogTopics(kafka_configuration(WorkerSettings(**unknown_client(guarded))))
