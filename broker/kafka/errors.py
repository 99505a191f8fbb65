"""Kafka's errors in the product's tree, and the client's complaints in the log: once until they are over."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from broker.kafka.security import KafkaSecurity
from runtime import metrics
from runtime.errors import Fatal, Misconfigured, Rejected, Retryable, SansfilmError
from runtime.logs import get_logger
from schemas.reasons import RejectReason

_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
#: The client's words where the other side went away in the middle of telling who calls.
_GONE = ("Local: Broker transport failure", "Local: Timed out")


def error_of(exception: KafkaException) -> KafkaError:
    """The error that an exception of the client carries."""
    error = exception.args[0] if exception.args else None
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(exception))


def refusal_of(error: KafkaError, security: KafkaSecurity) -> Misconfigured | None:
    """What an operator must set where the client complains that one side refuses the other; None otherwise.

    The client has few codes for it and repeats for ever, so that its words decide. A connection that merely ends,
    whenever that is, refuses nobody: so does a load balancer whose brokers are away.
    """
    said = error.str()
    if any(words in said for words in _GONE):
        return None
    if "mechanism handshake failed" in said:
        known = said.rpartition("supported mechanisms: ")[2].partition(" ")[0]
        return Misconfigured(
            f"the broker does not take passwords by {security.mechanism}: set SANSFILM_KAFKA_SASL_MECHANISM to one of "
            f"{known}"
        )
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return Misconfigured(
            f"the broker refused the credentials of user {security.user}: set SANSFILM_KAFKA_USER and "
            "SANSFILM_KAFKA_PASSWORD to what it knows"
        )
    if "certificate verify failed" in said:
        signers = security.ca_file or "whom this system trusts"
        return Misconfigured(
            f"the broker's certificate is not signed by {signers}, or is of another host: see SANSFILM_KAFKA_CA_FILE "
            "and SANSFILM_KAFKA_BOOTSTRAP"
        )
    if "SSL alert" in said:
        shown = security.certificate_file or "none, where one is wanted"
        return Misconfigured(
            f"the broker refused this client's certificate ({shown}): see SANSFILM_KAFKA_CERTIFICATE_FILE"
        )
    if "wrong version number" in said:
        return Misconfigured("the broker does not speak TLS at this address: see SANSFILM_KAFKA_BOOTSTRAP")
    return None


def is_cut_in_handshake(error: KafkaError) -> bool:
    """Whether the other side ended the connection before TLS was agreed on: no broker is behind it, or one without TLS.

    Nothing tells these two apart.
    """
    said = error.str()
    return "Disconnected" in said and "SSL_HANDSHAKE" in said


def published(error: KafkaError, refusal: Misconfigured | None = None) -> SansfilmError:
    """What the future of a message that was not acknowledged raises; `refusal` is why, where that is known."""
    if error.code() in _TOO_LARGE:
        return Rejected(RejectReason.TOO_LARGE, "the log's topic takes no message of that size: sansfilm topics check")
    if error.code() in _NO_TOPIC:
        return Retryable("the log's topic is missing: run sansfilm topics apply")
    return Retryable(f"Kafka did not acknowledge the message: {refusal or error.name()}")


def consumed(error: KafkaError, topic: str) -> SansfilmError | None:
    """What ends `take`; None for what the client recovers from by itself."""
    code = error.code()
    if error.fatal():
        return Fatal(f"Kafka's consumer cannot go on ({error.name()}): start this process again")
    if code == KafkaError._AUTO_OFFSET_RESET:
        return no_offset(topic)
    if code in _NO_TOPIC:
        return no_topic(topic)
    if code in _REFUSED:
        return Misconfigured(f"Kafka refuses {topic} to this process ({error.name()}): see its credentials and ACLs")
    if code in (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION):
        return Fatal(f"a batch of {topic} cannot be read ({error.str()}): make a sound replica its leader")
    return None


def no_topic(topic: str) -> Misconfigured:
    """The lane's topic does not exist."""
    return Misconfigured(f"Kafka has no topic {topic}: run sansfilm topics apply")


def no_offset(topic: str) -> Fatal:
    """Where to read on is unknown, or is no longer in the topic: going on alone could skip messages."""
    return Fatal(
        f"the group's committed offset in {topic} is missing or lies outside of the topic: see what was lost with"
        " sansfilm topics check, then run sansfilm topics apply"
    )


def admin_failed(what: str, exception: KafkaException) -> SansfilmError:
    """An administrative request was refused or went unanswered."""
    error = error_of(exception)
    if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
        return Misconfigured(f"could not {what}: there are fewer brokers than replicas; give --replication")
    if error.code() in _REFUSED:
        return Misconfigured(f"could not {what}: Kafka refuses it to this user ({error.name()})")
    return Retryable(f"could not {what}: {error.name()}: {error.str()}")


class Refusals:
    """Why one side refuses the other, as the client's errors tell it."""

    def __init__(self, security: KafkaSecurity) -> None:
        self._security = security
        #: The first since it last worked. Another broker may not refuse.
        self.found: Misconfigured | None = None
        #: Whether the client has come to the end of the brokers that it knows.
        self.all_down = False
        #: Whether a connection ended in TLS's handshake, which may be an address without TLS.
        self.was_cut = False

    def note(self, error: KafkaError) -> None:
        """See whether the client complains of it."""
        self.all_down = self.all_down or error.code() == KafkaError._ALL_BROKERS_DOWN
        self.was_cut = self.was_cut or is_cut_in_handshake(error)
        self.found = self.found or refusal_of(error, self._security)


class Complaints:
    """The client's own errors (brokers away, connections lost), logged when they begin and when they are over."""

    def __init__(self, client: str, security: KafkaSecurity) -> None:
        self._client = client
        self._begun = False
        self._refusals = Refusals(security)

    @property
    def refusal(self) -> Misconfigured | None:
        """That one side refuses the other, since it last worked."""
        return self._refusals.found

    def note(self, error: KafkaError) -> None:
        """Log and count what the client complains of."""
        metrics.KAFKA_ERRORS.labels(client=self._client).inc()
        if not self._begun:
            self._begun = True
            get_logger().warning("kafka_unavailable", client=self._client, error=error.name())
        before = self.refusal
        self._refusals.note(error)
        if self.refusal is not before:
            get_logger().error("kafka_refused", client=self._client, message=str(self.refusal))

    def over(self) -> None:
        """It works again."""
        self._refusals.found = None
        if self._begun:
            self._begun = False
            get_logger().info("kafka_available", client=self._client)
