"""The forwarder as a process of the edge role: a thread a lane, from this machine's spool to the log of the region."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from typing import Final

from archive.layout import path_of
from archive.opening import open_uploads
from archive.segment_store import KeyTaken
from broker.local import FORWARDER, LocalConsumer
from broker.log import Publisher, Taken
from broker.opening import check_region, open_region
from ingest.forwarder import Forwarder, ForwardLimits
from runtime.clock import SystemClock
from runtime.errors import Fatal, Misconfigured
from runtime.logs import get_logger
from runtime.settings import MIB, EdgeSettings
from schemas.message import Lane
from segments.disk import Disk, SystemDisk

#: What one lane has under way; the publisher holds a copy of it.
_MESSAGES_MAX: Final = 512
_BYTES_MAX: Final = 32 * MIB
_IDLE_WAIT_S: Final = 0.25
_RETRY_WAIT_MAX_S: Final = 10.0


def run_forwarder(settings: EdgeSettings, stop: threading.Event, ready: Callable[[], None]) -> int:
    """Ship until `stop` is set, then what is left until the deadline; gives how many messages stay in the spool.

    It is ready without the log: brokers that refuse us at the start are told of in our own log and tried again, as if
    they were away. An edge must receive while its password is being changed.

    Raises:
        Misconfigured: there is no log to ship to, its settings cannot be meant, or another process ships this spool.
        Fatal: the log refuses this edge; what is spooled stays.
    """
    if not settings.kafka_bootstrap:
        raise Misconfigured("there is nowhere to ship a spool to: set SANSFILM_KAFKA_BOOTSTRAP")
    disk = SystemDisk()
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_region(settings)))
        claims = _Claims(settings, disk)
        forwarders = [_forwarder(settings, lane, log, claims, disk, stack) for lane in Lane]
        threads = stack.enter_context(ThreadPoolExecutor(len(forwarders), "forward"))
        running = [threads.submit(_run, one, stop, settings.shutdown_timeout_s * 0.8) for one in forwarders]
        ready()
        _tell_refusal(settings)
        wait(running)
    left = sum(one.result() for one in running)
    get_logger().info("forwarder_stopped", messages_left=left)
    return left


def _tell_refusal(settings: EdgeSettings) -> None:
    """Say it even while there is nothing to ship."""
    try:
        check_region(settings)
    except Misconfigured as refusal:
        get_logger().error("kafka_refused", client="forwarder", message=f"{refusal}; this edge spools meanwhile")


class _Claims:
    """Large instances of the spool: carried to the object store under the key they will have for good."""

    def __init__(self, settings: EdgeSettings, disk: Disk) -> None:
        self._folder = settings.staged_dir
        self._disk = disk
        self._uploads = open_uploads(settings, SystemClock()) if settings.store_url else None

    def ship(self, taken: Taken) -> None:
        """Put the object there unless it is there already; what lies in the archive's own folder needs no shipping.

        Raises:
            Retryable: ship it again.
            Fatal: another object has its key, which nobody but this edge can have given.
        """
        if self._uploads is None:
            return
        key = taken.message.attributes.data_ref
        try:
            self._uploads.put_file(key, path_of(self._folder, key))
        except KeyTaken:
            raise Fatal(
                f"the object store holds another object as {key}: look who writes there; the spool stays"
            ) from None
        except FileNotFoundError:
            # Shipped before and delivered again, or lost with a part of the disk: the worker will say which.
            get_logger().error("staged_object_missing", segment=key, message_id=taken.message.attributes.id)

    def drop(self, taken: Taken) -> None:
        """Forget our own copy."""
        if self._uploads is not None:
            self._disk.remove(path_of(self._folder, taken.message.attributes.data_ref))


def _forwarder(
    settings: EdgeSettings, lane: Lane, log: Publisher, claims: _Claims, disk: Disk, stack: ExitStack
) -> Forwarder:
    spool = LocalConsumer(settings.log_dir, lane=lane, group=FORWARDER, disk=disk)
    return Forwarder(
        lane=lane,
        spool=stack.enter_context(closing(spool)),
        log=log,
        ship_claim=claims.ship,
        drop_claim=claims.drop,
        limits=ForwardLimits(
            max_messages=_MESSAGES_MAX,
            max_bytes=_BYTES_MAX,
            idle_wait_s=_IDLE_WAIT_S,
            ack_timeout_s=settings.ack_timeout_s,
            retry_wait_max_s=_RETRY_WAIT_MAX_S,
        ),
    )


def _run(forwarder: Forwarder, stop: threading.Event, drain_timeout_s: float) -> int:
    try:
        return forwarder.run(stop, drain_timeout_s)
    finally:
        stop.set()  # a lane that fails takes the process down in order: the supervisor starts it again
