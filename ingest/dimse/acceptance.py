"""Which presentation contexts are accepted, and in which transfer syntax (PS3.8 7.1.1.13, 9.3.3.2).

Each presentation context is judged alone. Bytes are kept as they come, so the order of preference says in which form
we would rather keep them: plain little endian, losslessly compressed, deflated, big-endian; lossy and video forms are
taken where a sender offers nothing else for the context, because then that form is the original. Syntaxes that only
refer to pixels kept elsewhere (JPIP), that are streams and not objects (SMPTE ST 2110), or that nobody could read
later (private ones) are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

from schemas.identifiers import is_safe_uid

VERIFICATION: Final = "1.2.840.10008.1.1"
_JPEG: Final = "1.2.840.10008.1.2.4."
PREFERENCE: Final[tuple[str, ...]] = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    # lossless: HTJ2K, JPEG-LS, JPEG 2000, JPEG, RLE
    *(_JPEG + suffix for suffix in ("202", "201", "80", "90", "92", "70", "57", "58", "65", "66")),
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    # may be lossless, may be not, and JPEG XL's transcoded JPEG
    *(_JPEG + suffix for suffix in ("110", "111", "203", "91", "93", "81", "112")),
    # lossy: JPEG
    *(_JPEG + suffix for suffix in ("51", "50", "52", "53", "54", "55", "56", "59", "60", "61", "62", "63", "64")),
    # video: HEVC, AVC, MPEG-2
    *(_JPEG + suffix for suffix in ("108", "107", "106", "105", "104", "103", "102", "101", "100")),
    *(_JPEG + suffix for suffix in ("106.1", "105.1", "104.1", "103.1", "102.1", "101.1", "100.1")),
)
_RANK: Final = {transfer_syntax: rank for rank, transfer_syntax in enumerate(PREFERENCE)}
#: Contains "Storage" in its name and belongs to another service.
_NOT_STORED: Final = frozenset(
    {
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model
        "1.2.840.10008.1.3.10",  # Media Storage Directory: a DICOMDIR lives on media (PS3.10), never on the wire
    }
)


class ContextResult(IntEnum):
    """Result/Reason of a presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """A presentation context as proposed (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentationContext:
    """A presentation context as answered. `transfer_syntax` is the accepted one, else the first proposed."""

    context_id: int
    result: ContextResult
    abstract_syntax: str
    transfer_syntax: str

    @property
    def accepted(self) -> bool:
        return self.result is ContextResult.ACCEPTANCE


def accept(proposed: ProposedContext) -> PresentationContext:
    """The answer to one proposed presentation context."""
    transfer_syntax = preferred(proposed.transfer_syntaxes)
    if not is_accepted_abstract_syntax(proposed.abstract_syntax):
        result = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    elif transfer_syntax is None:
        result = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    else:
        result = ContextResult.ACCEPTANCE
    return PresentationContext(
        context_id=proposed.context_id,
        result=result,
        abstract_syntax=proposed.abstract_syntax,
        transfer_syntax=transfer_syntax or next(iter(proposed.transfer_syntaxes), PREFERENCE[1]),
    )


def preferred(transfer_syntaxes: Sequence[str]) -> str | None:
    """The one of `transfer_syntaxes` in which we would rather receive; None if none can be kept."""
    known = [transfer_syntax for transfer_syntax in transfer_syntaxes if transfer_syntax in _RANK]
    return min(known, key=_RANK.__getitem__, default=None)


def is_accepted_transfer_syntax(uid: str) -> bool:
    """Whether instances in this transfer syntax are taken at all."""
    return uid in _RANK


def is_accepted_abstract_syntax(uid: str) -> bool:
    """Verification, every storage SOP class, and every UID that the registry does not know (private, or newer)."""
    return uid == VERIFICATION or is_stored_sop_class(uid)


def is_stored_sop_class(uid: str) -> bool:
    """Whether instances of this SOP class may be stored."""
    known = UID_dictionary.get(uid)
    if known is None:
        return is_safe_uid(uid)
    name, kind = known[0], known[1]
    return kind == "SOP Class" and "Storage" in name and uid not in _NOT_STORED
