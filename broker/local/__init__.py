"""The log on files of one machine; see `broker` for its design."""

from broker.local.consumer import LocalConsumer
from broker.local.layout import FORWARDER, WORKERS
from broker.local.publisher import LocalPublisher
from broker.local.usage import Usage, log_usage
from broker.local.waiting import first_waiting, waiting_attributes

__all__ = [
    "FORWARDER",
    "WORKERS",
    "LocalConsumer",
    "LocalPublisher",
    "Usage",
    "first_waiting",
    "log_usage",
    "waiting_attributes",
]
