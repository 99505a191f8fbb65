"""What verify and rebuild have to say of a segment or an instance. UIDs and codes, never a patient attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What was found; `is_error` tells which of them are losses or damage."""

    SEGMENT_MISSING = "segment_missing"
    MEMBER_DAMAGED = "member_damaged"
    ORIGINAL_DIFFERS = "original_differs"
    PIXELS_DIFFER = "pixels_differ"
    INDEX_DAMAGED = "index_damaged"
    JOURNAL_DAMAGED = "journal_damaged"
    MEMBER_UNREADABLE = "member_unreadable"
    #: A worker committed what had been given up in another life of the catalog; its bytes may be gone.
    CONDEMNED_AND_COMMITTED = "condemned_and_committed"
    DECISION_WITHOUT_OBJECT = "decision_without_object"
    SEGMENT_UNREFERRED = "segment_unreferred"
    INDEX_REPLACED = "index_replaced"

    @property
    def is_error(self) -> bool:
        """Whether something that was stored is not what it was."""
        return self not in (
            FindingKind.SEGMENT_UNREFERRED,
            FindingKind.INDEX_REPLACED,
            FindingKind.DECISION_WITHOUT_OBJECT,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding."""

    kind: FindingKind
    segment: str = ""
    sop_instance_uid: str = ""
    detail: str = ""


Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is; often, so it must be cheap."""


def no_progress(done: int, total: int) -> None:
    """For callers that do not show any."""
