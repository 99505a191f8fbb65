"""The forwarder between two real logs: the edge's spool and, in place of the region's, another folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.local import FORWARDER, LocalConsumer, LocalPublisher, log_usage
from broker.log import Position, Taken
from ingest.forwarder import Forwarder, ForwardLimits
from runtime.clock import SystemClock
from runtime.errors import Fatal, Rejected, Retryable
from runtime.faults import REGION_POINTS, VARIABLE
from runtime.retries import Stopped
from schemas.message import Lane, Message
from schemas.reasons import RejectReason
from tests.broker.contract import numbers, publish, take_all
from tests.broker.messages import claim_check, instance
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 20.0
LIMITS = ForwardLimits(max_messages=4, max_bytes=1 << 20, idle_wait_s=0.05, ack_timeout_s=5.0, retry_wait_max_s=0.02)


@dataclass
class Region:
    """A log that may be away, and an archive's list of claims."""

    publisher: LocalPublisher
    #: What `publish` does with messages from now on; None takes them.
    fault: Callable[[Message], Exception | None] = lambda _: None
    claims: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def publish(self, message: Message) -> Future[Position]:
        if error := self.fault(message):
            refused: Future[Position] = Future()
            refused.set_exception(error)
            return refused
        return self.publisher.publish(message)

    def close(self) -> None:
        self.publisher.close()

    def ship_claim(self, taken: Taken) -> None:
        self.claims.append(taken.message.attributes.data_ref)

    def drop_claim(self, taken: Taken) -> None:
        self.dropped.append(taken.message.attributes.data_ref)


class Edge:
    """A spool and the region behind it, on two folders."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.log = folder / "spool", folder / "log"
        self.folder = folder

    def accept(self, messages: Iterable[Message]) -> None:
        with closing(LocalPublisher(self.spool, writer=f"edge-{SystemClock().new_id()}")) as publisher:
            publish(publisher, messages)

    @contextmanager
    def forwarder(self) -> Iterator[tuple[Forwarder, Region]]:
        with ExitStack() as stack:
            region = Region(LocalPublisher(self.log, writer=f"forwarder-{SystemClock().new_id()}"))
            stack.enter_context(closing(region))
            spool = stack.enter_context(closing(LocalConsumer(self.spool, lane=Lane.ROUTINE, group=FORWARDER)))
            yield (
                Forwarder(
                    lane=Lane.ROUTINE,
                    spool=spool,
                    log=region,
                    ship_claim=region.ship_claim,
                    drop_claim=region.drop_claim,
                    limits=LIMITS,
                ),
                region,
            )

    def left(self) -> int:
        return log_usage(self.spool, FORWARDER).uncommitted_messages[Lane.ROUTINE]

    def arrived(self, expected: int) -> list[int]:
        """The numbers of what is in the region's log, in its order."""
        with closing(LocalConsumer(self.log, lane=Lane.ROUTINE)) as consumer:
            return numbers(take_all(consumer, expected))


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


def drained(forwarder: Forwarder) -> int:
    stop = threading.Event()
    stop.set()
    return forwarder.run(stop, TIMEOUT_S)


def test_everything_is_shipped_once_in_order_and_the_spool_is_freed(edge: Edge) -> None:
    edge.accept(instance(number) for number in range(10))
    with edge.forwarder() as (forwarder, _):
        assert drained(forwarder) == 0
    assert edge.arrived(10) == list(range(10))
    assert edge.left() == 0
    assert not list(edge.spool.rglob("*.tar"))


def test_while_the_log_is_away_nothing_is_freed_and_nothing_is_lost(edge: Edge) -> None:
    edge.accept(instance(number) for number in range(6))
    with edge.forwarder() as (forwarder, region):
        region.fault = lambda _: Retryable("away")
        assert drained(forwarder) == 6
        assert edge.left() == 6
        region.fault = lambda _: None
        assert drained(forwarder) == 0
    assert edge.arrived(6) == list(range(6))


def test_after_a_failure_the_order_goes_on_from_the_first_that_failed(edge: Edge) -> None:
    """Those behind it may come twice: the archive answers Same."""
    faults = [Retryable("dropped")]
    edge.accept(instance(number) for number in range(4))
    with edge.forwarder() as (forwarder, region):
        region.fault = lambda message: faults.pop() if message.attributes.id.endswith("1") and faults else None
        assert forwarder.ship(threading.Event(), TIMEOUT_S) == 4
    assert edge.arrived(6) == [0, 2, 3, 1, 2, 3]


def test_what_could_not_be_shipped_before_a_stop_is_not_freed_by_what_follows(edge: Edge) -> None:
    edge.accept(instance(number) for number in range(8))
    stop = threading.Event()
    with edge.forwarder() as (forwarder, region):

        def fault(message: Message) -> Exception | None:
            stop.set()
            return Retryable("away") if message.attributes.id.endswith("0") else None

        region.fault = fault
        with pytest.raises(Stopped):
            forwarder.ship(stop, TIMEOUT_S)
        region.fault = lambda _: None
        assert forwarder.ship(threading.Event(), TIMEOUT_S) == 4
    assert edge.left() == 4


@pytest.mark.parametrize("error", [Fatal("not allowed"), Rejected(RejectReason.TOO_LARGE)])
def test_an_error_that_will_not_pass_ends_it_and_frees_nothing(edge: Edge, error: Exception) -> None:
    edge.accept([instance(1)])
    with edge.forwarder() as (forwarder, region):
        region.fault = lambda _: error
        with pytest.raises(Fatal):
            forwarder.run(threading.Event(), TIMEOUT_S)
    assert edge.left() == 1


def test_a_claim_is_shipped_before_its_message_and_dropped_after_it_is_freed(edge: Edge) -> None:
    claim = claim_check(1)
    edge.accept([claim])
    with edge.forwarder() as (forwarder, region):
        region.fault = lambda _: Retryable("away")
        drained(forwarder)
        assert set(region.claims) == {claim.attributes.data_ref}
        assert not region.dropped
        region.fault = lambda _: None
        drained(forwarder)
        assert region.dropped == [claim.attributes.data_ref]


def test_it_ships_what_comes_while_it_runs(edge: Edge) -> None:
    stop = threading.Event()
    with edge.forwarder() as (forwarder, _):
        thread = threading.Thread(target=forwarder.run, args=(stop, TIMEOUT_S))
        thread.start()
        for number in range(3):
            edge.accept([instance(number)])
            until(lambda: edge.left() == 0, what="an empty spool")
        stop.set()
        thread.join(TIMEOUT_S)
    assert edge.arrived(3) == [0, 1, 2]


@pytest.mark.parametrize("point", [point for point in REGION_POINTS if point.startswith("forwarder.")])
def test_killed_anywhere_it_loses_nothing(edge: Edge, point: str) -> None:
    edge.accept([instance(0), claim_check(1), *(instance(number) for number in range(2, 9))])
    command = [sys.executable, "-m", "tests.ingest.forwarding", str(edge.folder)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, VARIABLE: f"{point}:1"}, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0
    assert edge.left() == 0
    arrived = edge.arrived(9)
    assert sorted(set(arrived)) == list(range(9))
    assert list(dict.fromkeys(arrived)) == list(range(9))
