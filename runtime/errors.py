"""The error tree. Each branch says what the caller may do next.

    SansfilmError
    ├── Retryable          position stays; back off and try again (database busy, store away)
    │   └── OutOfSpace     the disk rule or ENOSPC: refuse new work, keep committing what is acknowledged
    ├── Rejected           this instance is not accepted; the sender is told `reason` and keeps it
    ├── Unfileable         this acknowledged instance cannot be filed; quarantine it with `reason`
    └── Fatal              stop the process, losing nothing; the message says what an operator must do
        └── Misconfigured  a setting or the machine's state is wrong; printed as one sentence, exit code 2

A foreign exception is mapped into this tree at the seam where it is caught. Messages never quote a value of a data set.
"""

from __future__ import annotations

from schemas.reasons import QuarantineReason, RejectReason


class SansfilmError(Exception):
    """Base of all errors this product raises on purpose."""


class Retryable(SansfilmError):
    """A passing fault. Nothing was changed; try again after a pause."""


class OutOfSpace(Retryable):
    """There is no room. Free space; what is acknowledged stays safe meanwhile."""


class Rejected(SansfilmError):
    """The instance is refused; `reason` decides the DIMSE and HTTP status."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class Unfileable(SansfilmError):
    """The instance is kept in quarantine; `reason` is bounded, `detail` quotes no value."""

    def __init__(self, reason: QuarantineReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class Fatal(SansfilmError):
    """This process cannot go on. The message says what to do."""


class Misconfigured(Fatal):
    """A setting or the machine's state is wrong. The message is one sentence an operator can act on."""
