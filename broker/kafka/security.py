"""How the brokers are known, and what they are told of who calls: the same for every client of the log.

Closed by default: brokers that are not on this machine are reached over TLS and with credentials only, a password or a
client certificate, unless `insecure_demo` accepts the risk.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.addresses import is_loopback
from runtime.errors import Misconfigured
from runtime.settings import CommonSettings

_PROTOCOL: Final = "SANSFILM_KAFKA_SECURITY_PROTOCOL"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """TLS and credentials. Files are PEM; they are read when a client is made, so a renewed one at the next start."""

    #: plaintext, ssl, sasl_plaintext or sasl_ssl.
    protocol: str = "plaintext"
    #: Who signs the brokers' certificates; empty: whoever this system trusts.
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password: str = field(default="", repr=False)
    mechanism: str = "SCRAM-SHA-512"
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_encrypted(self) -> bool:
        """Whether it is TLS."""
        return self.protocol in ("ssl", "sasl_ssl")

    @property
    def has_user(self) -> bool:
        """Whether a user name and a password are given to the brokers."""
        return self.protocol in ("sasl_plaintext", "sasl_ssl")

    def client(self) -> dict[str, Any]:
        """Settings of any client. They hold the passwords: never log or print them."""
        settings = {"security.protocol": self.protocol}
        if self.has_user:
            settings |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.user,
                "sasl.password": self.password,
            }
        if self.is_encrypted:
            # A broker is who its certificate names.
            settings |= {"ssl.endpoint.identification.algorithm": "https"}
            settings |= {"ssl.ca.location": self.ca_file} if self.ca_file else {}
        if self.is_encrypted and self.certificate_file:
            settings |= {"ssl.certificate.location": self.certificate_file, "ssl.key.location": self.key_file}
            settings |= {"ssl.key.password": self.key_password} if self.key_password else {}
        return settings


def security_from(settings: CommonSettings) -> KafkaSecurity:
    """What the settings say, once it is known that a client can be made of it.

    Raises:
        Misconfigured: a setting is missing or cannot be meant, a file cannot be read, or the brokers are not on this
            machine and would be reached without TLS or without credentials.
    """
    security = KafkaSecurity(
        protocol=settings.kafka_security_protocol,
        ca_file=settings.kafka_ca_file,
        certificate_file=settings.kafka_certificate_file,
        key_file=settings.kafka_key_file,
        key_password=settings.kafka_key_password.get_secret_value(),
        mechanism=settings.kafka_sasl_mechanism,
        user=settings.kafka_user,
        password=settings.kafka_password.get_secret_value(),
    )
    _check_use(security)
    if not settings.insecure_demo:
        _check_closed(security, settings.kafka_bootstrap)
    _check_files(security)
    return security


def _check_use(security: KafkaSecurity) -> None:
    """What is given must be used, or somebody believes in a protection that is not there."""
    if (security.user or security.password) and not security.has_user:
        raise Misconfigured(
            f"SANSFILM_KAFKA_USER or SANSFILM_KAFKA_PASSWORD is set, and {_PROTOCOL} {security.protocol} has no use "
            "for it: set sasl_ssl, or leave them out"
        )
    if security.has_user and not (security.user and security.password):
        raise Misconfigured(f"{_PROTOCOL} {security.protocol} needs SANSFILM_KAFKA_USER and SANSFILM_KAFKA_PASSWORD")
    if (security.ca_file or security.certificate_file or security.key_file) and not security.is_encrypted:
        raise Misconfigured(
            f"a file of certificates or keys is set, and {_PROTOCOL} {security.protocol} has no use for it: set ssl or "
            "sasl_ssl, or leave it out"
        )
    if bool(security.certificate_file) != bool(security.key_file):
        raise Misconfigured("SANSFILM_KAFKA_CERTIFICATE_FILE and SANSFILM_KAFKA_KEY_FILE go together: set both")


def _check_closed(security: KafkaSecurity, bootstrap: str) -> None:
    others = [host for host in _hosts(bootstrap) if not is_loopback(host)]
    if not others:
        return
    where = (
        f"SANSFILM_KAFKA_BOOTSTRAP names {others[0]}, which is not this machine, and {_PROTOCOL} {security.protocol}"
    )
    accept = "or SANSFILM_INSECURE_DEMO=true to accept that"
    if not security.is_encrypted:
        raise Misconfigured(f"{where} encrypts nothing: set sasl_ssl or ssl, {accept}")
    if not (security.has_user or security.certificate_file):
        raise Misconfigured(
            f"{where} does not tell the brokers who calls: set SANSFILM_KAFKA_CERTIFICATE_FILE and "
            f"SANSFILM_KAFKA_KEY_FILE, or sasl_ssl with a user and a password, {accept}"
        )


def _hosts(bootstrap: str) -> list[str]:
    """The hosts of ``host:port,[::1]:port,...``."""
    hosts = []
    for broker in bootstrap.split(","):
        place = broker.strip().rpartition("://")[2]
        if place.startswith("["):
            hosts.append(place[1:].partition("]")[0])
        elif place:
            hosts.append(place.partition(":")[0] if place.count(":") == 1 else place)
    return hosts


def _check_files(security: KafkaSecurity) -> None:
    """Read them as the client will, whose own words name neither file nor setting."""
    for name in ("ca_file", "certificate_file", "key_file"):
        if path := getattr(security, name):
            _check_readable(f"SANSFILM_KAFKA_{name.upper()}", Path(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if security.ca_file:
        try:
            context.load_verify_locations(security.ca_file)
        except ssl.SSLError:
            raise Misconfigured(f"SANSFILM_KAFKA_CA_FILE {security.ca_file} holds no certificate in PEM") from None
    if security.certificate_file:
        try:
            # Without a password to give, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(security.certificate_file, security.key_file, lambda: security.key_password)
        except ssl.SSLError:
            raise Misconfigured(
                f"SANSFILM_KAFKA_CERTIFICATE_FILE {security.certificate_file} and SANSFILM_KAFKA_KEY_FILE "
                f"{security.key_file} are no certificate and its key in PEM, or SANSFILM_KAFKA_KEY_PASSWORD is not the "
                "key's"
            ) from None


def _check_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise Misconfigured(f"{name} {path} cannot be read: {error.strerror}") from None
