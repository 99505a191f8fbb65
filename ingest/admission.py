"""What may come in: the disk rule for instances, and the places for associations."""

from __future__ import annotations

import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from runtime.clock import Clock
from runtime.errors import Rejected, Retryable
from runtime.settings import EdgeSettings
from schemas.reasons import RejectReason

#: How old a sample of the disk may be while there is room in plenty.
SAMPLE_AGE_MAX_S: Final = 0.5
#: With less than this above the limit every instance asks the disk: what comes in half a second at 1 GB/s takes as much
#: in the log, and once more when a worker files it.
PLENTY_BYTES: Final = 1 << 30
#: What an uncommitted byte of the log still needs on the disk once a worker files it.
LOG_FACTOR: Final = 1.1
#: Places beyond the limits for associations that propose Verification alone, so that C-ECHO answers on a full edge.
VERIFICATION_RESERVE: Final = 4


class DiskRule:
    """Instances are taken while free space >= reserve + 1.1 x the log that is not committed. Thread-safe, cheap."""

    def __init__(
        self,
        settings: EdgeSettings,
        clock: Clock,
        *,
        uncommitted_bytes: Callable[[], int],
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._reserve_bytes = settings.disk_reserve_bytes
        self._clock = clock
        self._uncommitted_bytes = uncommitted_bytes
        self._free_bytes = free_bytes or (lambda: shutil.disk_usage(settings.data_dir).free)
        self._sampling = threading.Lock()
        self._sampled_at = float("-inf")
        #: Free space beyond what is kept back; negative when there is no room.
        self._spare_bytes = 0.0

    def check(self) -> None:
        """Ask for room for one more instance.

        Raises:
            Rejected: DISK_LOW; nothing was taken, the sender may try again later.
        """
        if self._spare_bytes < PLENTY_BYTES:
            with self._sampling:
                self._sample()
        elif self._is_stale() and self._sampling.acquire(blocking=False):
            # One thread samples; the others go by what was known a moment ago.
            try:
                self._sample()
            finally:
                self._sampling.release()
        if self._spare_bytes < 0:
            raise Rejected(RejectReason.DISK_LOW, "the disk is nearly full")

    def _is_stale(self) -> bool:
        return self._clock.monotonic_s() - self._sampled_at >= SAMPLE_AGE_MAX_S

    def _sample(self) -> None:
        try:
            needed = self._reserve_bytes + LOG_FACTOR * self._uncommitted_bytes()
            self._spare_bytes = self._free_bytes() - needed
        except (OSError, Retryable):  # a disk that cannot even be asked has no room
            self._spare_bytes = -1.0
        self._sampled_at = self._clock.monotonic_s()


class Seat(Protocol):
    """A connection as the limits see it."""

    @property
    def address(self) -> str:
        """The caller's network address."""

    def evict(self) -> None:
        """Close at once; called from another connection's thread."""


class Seats:
    """Who sits where: connections without an association, associations, and the verification reserve. Thread-safe.

    Connections without an association (not yet, or no longer) never use up associations' places: over
    ``associations_max`` of them the oldest is closed. Threads are thereby bounded by twice that limit and the reserve.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self._max = settings.associations_max
        self._per_caller_max = settings.associations_per_caller_max
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Seat, None] = OrderedDict()
        self._associated: set[Seat] = set()
        self._callers: Counter[str] = Counter()
        self._reserve: OrderedDict[Seat, None] = OrderedDict()

    def enter(self, seat: Seat) -> None:
        """A connection was accepted. May evict the oldest one that has no association."""
        with self._lock:
            evicted = self._wait(seat)
        if evicted is not None:
            evicted.evict()

    def associate(self, seat: Seat, *, verification_only: bool) -> bool:
        """Give `seat` an association's place; False if there is none."""
        evicted = None
        with self._lock:
            if len(self._associated) < self._max and self._callers[seat.address] < self._per_caller_max:
                self._associated.add(seat)
                self._callers[seat.address] += 1
            elif verification_only:
                if len(self._reserve) >= VERIFICATION_RESERVE:
                    evicted = self._reserve.popitem(last=False)[0]
                self._reserve[seat] = None
            else:
                return False
            self._waiting.pop(seat, None)
        if evicted is not None:
            evicted.evict()
        return True

    def dissociate(self, seat: Seat) -> None:
        """The association is over; its connection still lingers."""
        with self._lock:
            evicted = self._wait(seat) if self._leave(seat) else None
        if evicted is not None:
            evicted.evict()

    def exit(self, seat: Seat) -> None:
        """The connection is closed."""
        with self._lock:
            self._leave(seat)
            self._waiting.pop(seat, None)

    def present(self) -> list[Seat]:
        """Everyone who is here now."""
        with self._lock:
            return [*self._waiting, *self._associated, *self._reserve]

    def _wait(self, seat: Seat) -> Seat | None:
        self._waiting[seat] = None
        return self._waiting.popitem(last=False)[0] if len(self._waiting) > self._max else None

    def _leave(self, seat: Seat) -> bool:
        if seat in self._associated:
            self._associated.remove(seat)
            self._callers[seat.address] -= 1
            if not self._callers[seat.address]:
                del self._callers[seat.address]
            return True
        return self._reserve.pop(seat, self) is None
