"""How a run of a command bears faults that pass: unlike a role, it ends, and says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from runtime.errors import Fatal, OutOfSpace, Retryable
from runtime.lifecycle import Deadline
from runtime.retries import persist

T = TypeVar("T")
#: So long a passing fault may last before a run ends.
FAULT_MAX_S: Final = 300.0
_RETRY_WAIT_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Of one run, in whichever of its threads: some minutes for a fault, and none once `stop` is set."""

    stop: threading.Event = field(default_factory=threading.Event)
    fault_max_s: float = FAULT_MAX_S
    #: Whether somebody else may make room while a disk is full.
    waits_for_room: bool = True

    def lasting(self, name: str, step: Callable[[], T]) -> T:
        """`step`, repeated while a passing fault lasts; gives what it gives.

        Raises:
            Stopped: `stop` was set meanwhile.
            Fatal: the fault lasted too long, or there is no room; run it again.
        """
        deadline: Deadline | None = None

        def attempt() -> T:
            nonlocal deadline
            try:
                return step()
            except Retryable as error:
                if isinstance(error, OutOfSpace) and not self.waits_for_room:
                    raise Fatal(f"{error}: make room, then run it again") from error
                deadline = deadline or Deadline(self.fault_max_s)
                if deadline.passed:
                    lasted = f"a fault lasted {self.fault_max_s / 60:g} minutes"
                    raise Fatal(f"{lasted}: {error}; run it again once it is over") from error
                raise

        return persist(attempt, name=name, stop=self.stop, wait_max_s=_RETRY_WAIT_MAX_S)
