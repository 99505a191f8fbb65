"""An intake as the settings want it: into this machine's log, an edge's spool, or Kafka and the object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Literal

from archive.opening import open_uploads
from archive.segment_store import OpenClaimCheck
from broker.log import Publisher
from broker.opening import is_spooling, local_usage, open_publisher, open_spool
from ingest.admission import DiskRule
from ingest.intake import Intake
from ingest.lane_store import LaneStore
from ingest.large import local_claim_checks
from runtime.clock import Clock
from runtime.settings import EdgeSettings
from segments.disk import SystemDisk


@contextmanager
def opened_intake(settings: EdgeSettings, clock: Clock, *, role: Literal["edge", "web"]) -> Iterator[Intake]:
    """The intake of one process; at the end its log is synced and closed.

    Only an edge spools: what a web process takes is answered for by the log of the region.

    Raises:
        Misconfigured: a setting is wrong, or the object store refuses us.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    spooling = role == "edge" and is_spooling(settings)
    writer = f"{role}-{clock.new_id()}"
    opened: Callable[..., Publisher] = open_spool if spooling else open_publisher
    publisher = opened(settings, writer=writer, senders_write=role == "edge")
    with closing(publisher), closing(LaneStore(settings.lanes_path, clock=clock)) as lane_store:
        yield Intake(
            publisher,
            settings,
            clock,
            DiskRule(settings, clock, uncommitted_bytes=lambda: local_usage(settings).uncommitted_bytes),
            role=role,
            open_claim_check=_claim_checks(settings, clock, spooling=spooling),
            lane_store=lane_store,
        )


def _claim_checks(settings: EdgeSettings, clock: Clock, *, spooling: bool) -> OpenClaimCheck:
    if settings.store_url and not spooling:
        return open_uploads(settings, clock).open_claim_check
    folder = settings.staged_dir if spooling else settings.archive_dir
    return local_claim_checks(SystemDisk(), folder, clock)
