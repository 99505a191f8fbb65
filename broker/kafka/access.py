"""Whether the brokers take who we say we are: asked once, at a start, so that a refusal is no endless repetition."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.kafka.configuration import KafkaConfiguration
from broker.kafka.errors import Refusals
from runtime.lifecycle import Deadline

#: So long others than a broker that refused may answer, unless all are known to be down.
_PATIENCE_S: Final = 3.0
_ATTEMPT_S: Final = 0.5


def check_access(configuration: KafkaConfiguration) -> None:
    """Wait until a broker answers, a few seconds at most. Brokers that are away are no error here.

    Raises:
        Misconfigured: those that are there refuse our credentials, or we their certificate; says which.
    """
    if configuration.security.protocol != "plaintext":
        refusals = Refusals(configuration.security)
        await_access(AdminClient(configuration.admin() | {"error_cb": refusals.note}), refusals)


def await_access(client: AdminClient, refusals: Refusals) -> bool:
    """The same with a client whose errors `refusals` is told of; gives whether a broker answered."""
    deadline = Deadline(_PATIENCE_S)
    while not (refusals.all_down or deadline.passed):
        try:
            client.list_topics(timeout=_ATTEMPT_S)
            return True
        except KafkaException:
            client.poll(0)  # tells of errors
    if refusals.found is not None:
        raise refusals.found
    return False
