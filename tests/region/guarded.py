"""A real Kafka broker that asks who calls: a listener with TLS and passwords, one with TLS and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from region.kafka import SCRAM, KafkaBroker
from region.ports import free_ports
from tests.region.certificates import Authority, Certified

USER, PASSWORD = "worker-1", "pass-planted-7f3"
KEY_PASSWORD = "key-planted-9c1"
#: Users who may nothing but what they are allowed to; USER may everything, and so may the client's certificate.
LIMITED = ("edge-1", "pool-1", "keeper-1", "web-1", "replay-1", "operator-1")
_MODULES = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """The broker, its listeners, and what a client needs for each."""

    broker: KafkaBroker
    #: ``host:port`` of the listener that asks for a password, with TLS and without, and of the one for certificates.
    sasl_ssl: str
    sasl_plaintext: str
    mutual: str
    authority: Authority
    client: Certified
    #: An authority that the broker does not know, and a client of it.
    stranger: Authority
    strange_client: Certified

    def by_password(self, **changes: Any) -> dict[str, Any]:
        """Settings of a client that gives a password."""
        return {
            "kafka_bootstrap": self.sasl_ssl,
            "kafka_security_protocol": "sasl_ssl",
            "kafka_ca_file": str(self.authority.path),
            "kafka_user": USER,
            "kafka_password": PASSWORD,
            **changes,
        }

    def by_certificate(self, **changes: Any) -> dict[str, Any]:
        """Settings of a client that shows a certificate, whose key is encrypted."""
        return {
            "kafka_bootstrap": self.mutual,
            "kafka_security_protocol": "ssl",
            "kafka_ca_file": str(self.authority.path),
            "kafka_certificate_file": str(self.client.certificate),
            "kafka_key_file": str(self.client.key),
            "kafka_key_password": KEY_PASSWORD,
            **changes,
        }


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One broker for all tests that need a guarded one."""
    folder = tmp_path_factory.mktemp("guarded")
    authority, stranger = Authority(folder / "authority"), Authority(folder / "stranger")
    plain, controller, sasl_ssl, sasl_plaintext, mutual = free_ports(5)
    listeners = {"PLAINTEXT": plain, "SASL_SSL": sasl_ssl, "SASL_PLAINTEXT": sasl_plaintext, "SSL": mutual}
    settings = _settings(authority, listeners, controller)
    broker = KafkaBroker(
        folder / "kafka",
        ports=(plain, controller),
        heap_mib=256,
        quick=True,
        settings=settings,
        users=dict.fromkeys((USER, *LIMITED), PASSWORD),
    )
    broker.start()
    yield Guarded(
        broker=broker,
        sasl_ssl=f"127.0.0.1:{sasl_ssl}",
        sasl_plaintext=f"127.0.0.1:{sasl_plaintext}",
        mutual=f"127.0.0.1:{mutual}",
        authority=authority,
        client=authority.certify("client", password=KEY_PASSWORD),
        stranger=stranger,
        strange_client=stranger.certify("client"),
    )
    broker.kill()  # nothing of it is needed any more


def _settings(authority: Authority, listeners: dict[str, int], controller_port: int) -> dict[str, str]:
    places = [f"{name}://127.0.0.1:{port}" for name, port in listeners.items()]
    sasl = {
        f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config": f"{module} required{users};"
        for listener in ("sasl_ssl", "sasl_plaintext")
        for mechanism, module, users in (
            *((name, f"{_MODULES}.scram.ScramLoginModule", "") for name in SCRAM),
            ("PLAIN", f"{_MODULES}.plain.PlainLoginModule", f' user_{USER}="{PASSWORD}"'),
        )
    }
    return {
        "listeners": ",".join([*places, f"CONTROLLER://127.0.0.1:{controller_port}"]),
        "advertised.listeners": ",".join(places),
        "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in listeners) + ",CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{USER};User:CN=client",
        "sasl.enabled.mechanisms": ",".join([*SCRAM, "PLAIN"]),
        "listener.name.sasl_plaintext.sasl.enabled.mechanisms": ",".join(SCRAM),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.certify("broker").joined()),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.path),
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.sasl_ssl.ssl.client.auth": "requested",
        **sasl,
    }
