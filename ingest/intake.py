"""What C-STORE and STOW-RS share: from an announced instance to a message that is durable in the log."""

from __future__ import annotations

import socket
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from archive.segment_store import OpenClaimCheck
from broker.log import Position, Publisher
from ingest.admission import DiskRule
from ingest.arrival import Announced, Arrival, InstanceBuffer, Sender
from ingest.lane_store import LaneStore
from ingest.lanes import Lanes, parse_rules
from ingest.large import LargeInstance, local_claim_checks
from runtime.clock import Clock, rfc3339
from runtime.errors import OutOfSpace, Rejected, Retryable
from runtime.faults import reach
from runtime.metrics import BYTES_RECEIVED, INSTANCES_RECEIVED, INSTANCES_REJECTED
from runtime.settings import EdgeSettings
from schemas.message import INSTANCE_RECEIVED, Message, MessageAttributes
from schemas.reasons import RejectReason
from segments.disk import Disk, SystemDisk


class Intake:
    """Checks instances, gives them their identity, and publishes them. Thread-safe; one per process."""

    def __init__(
        self,
        publisher: Publisher,
        settings: EdgeSettings,
        clock: Clock,
        disk_rule: DiskRule,
        *,
        role: str = "edge",
        disk: Disk | None = None,
        open_claim_check: OpenClaimCheck | None = None,
        lane_store: LaneStore | None = None,
    ) -> None:
        """Raises Misconfigured if the rules of the lanes are wrong."""
        self._publisher = publisher
        self._settings = settings
        self._clock = clock
        self._disk_rule = disk_rule
        self._open_claim_check = open_claim_check or local_claim_checks(
            disk or SystemDisk(), settings.archive_dir, clock
        )
        self._lanes = Lanes(parse_rules(settings.lane_rules), settings.lane, store=lane_store)
        self._source = f"/{role}/{socket.gethostname()}"
        self.object_max_bytes = settings.object_max_bytes

    def buffer(self) -> InstanceBuffer:
        """Memory for one instance at a time, to be reused by its owner."""
        return InstanceBuffer(self._settings.inline_max_bytes)

    def begin(self, sender: Sender, announced: Announced, buffer: InstanceBuffer) -> Arrival:
        """An instance is about to come; its bytes go into `buffer`."""
        return Arrival(self, sender, announced, buffer)

    def monotonic_s(self) -> float:
        """The clock that spans are measured with."""
        return self._clock.monotonic_s()

    def acknowledged(self, published: Future[Position], arrival: Arrival) -> None:
        """Wait until the instance is durable; after that, and only then, success may be said.

        Raises:
            Rejected: DISK_LOW or LOG_UNAVAILABLE; a message that turns up later all the same is harmless.
        """
        try:
            published.result(self._settings.ack_timeout_s)
        except OutOfSpace as error:
            raise Rejected(RejectReason.DISK_LOW, "the disk is full") from error
        except (Retryable, FutureTimeout) as error:
            raise Rejected(RejectReason.LOG_UNAVAILABLE, "the log did not take it in time") from error
        route = arrival.sender.route
        INSTANCES_RECEIVED.labels(route).inc()
        BYTES_RECEIVED.labels(route).inc(arrival.size_bytes)

    # ---- for Arrival -----------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Raises Rejected (DISK_LOW) while there is no room for another instance."""
        self._disk_rule.check()

    def open_large(self) -> LargeInstance:
        """Begin a claim check. Raises OutOfSpace, Retryable."""
        return LargeInstance(self._open_claim_check(self._settings.tenant))

    def attributes(
        self, sender: Sender, *, study_uid: str, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str
    ) -> MessageAttributes:
        """The identity of an instance whose last byte arrived now; size and digests are still to be filled in."""
        reach("edge.received")
        return MessageAttributes(
            id=self._clock.new_id(),
            type=INSTANCE_RECEIVED,
            source=self._source,
            time=rfc3339(self._clock.now()),
            tenant=self._settings.tenant,
            lane=self._lanes.of(sender, self._settings.tenant, study_uid),
            study_uid=study_uid,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax=transfer_syntax,
            calling_ae=sender.calling_ae,
            called_ae=sender.called_ae,
            association_id=sender.association_id,
        )

    def publish(self, message: Message, large: LargeInstance | None) -> Future[Position]:
        """Hand a complete message to the log.

        Raises:
            Rejected: the log is closed or unavailable.
        """
        try:
            published = self._publisher.publish(message)
        except Retryable as error:  # at once: no message names the segment
            if large is not None:
                large.withdraw()
            if isinstance(error, OutOfSpace):
                raise Rejected(RejectReason.DISK_LOW, "the disk is full") from error
            raise Rejected(RejectReason.LOG_UNAVAILABLE, "the log is unavailable") from error
        if large is not None:
            published.add_done_callback(lambda done: _withdraw_unnamed(large, done))
        return published


def count_rejection(rejected: Rejected) -> None:
    """Count an instance that was refused."""
    INSTANCES_REJECTED.labels(rejected.reason.value).inc()


def _withdraw_unnamed(large: LargeInstance, done: Future[Position]) -> None:
    """Nothing was kept under OutOfSpace, so no message names the segment; any other failure may still turn up."""
    if isinstance(done.exception(), OutOfSpace):
        large.withdraw()
