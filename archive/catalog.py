"""The seam to the catalog: the one commit point, and the one way to ask what the archive holds.

`Catalog` belongs to the worker, `CatalogReader` to everyone else. All readers go through `CatalogReader`: current
version + state + corrections are applied there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

from runtime.errors import Retryable
from schemas.decisions import Decision
from schemas.identifiers import SegmentKey
from schemas.record import InstanceRecord, MemberLocation, PlacedRecord

# ---- verdicts: what a commit decided -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """The first content under this SOP Instance UID; it is visible now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """This content was committed before; nothing changed, the bytes just put are not referred to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Other content under a known UID: kept as a further version; the current one stays."""

    current_wire_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Entered in quarantine, or there already."""


Verdict = New | Same | Conflict | Quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVersion:
    """A committed version of an instance."""

    wire_sha256: str
    study_instance_uid: str
    current: bool
    location: MemberLocation
    #: Of the message that brought it.
    message_id: str = ""


#: Versions of one instance with which a re-encoded content is compared; equal to an older one it is a version more.
COMPARED_MAX: Final = 4


def comparable(versions: Sequence[KnownVersion]) -> Sequence[KnownVersion]:
    """The versions of an instance that are worth the time of a comparison: the current one and the newest.

    A device that gives everything one UID would otherwise cost the square of what it sends.
    """
    current = [version for version in versions if version.current]
    newest = [version for version in reversed(versions) if not version.current]
    return [*current, *newest[: COMPARED_MAX - len(current)]]


class SegmentCondemned(Retryable):
    """Segments of this batch are being collected: nothing was committed. Put it again, under another key.

    A claim check among `keys` may still be there to be read; it is never to be referred to.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(f"{len(keys)} segments were given up before they were committed")
        self.keys = frozenset(keys)


Equal = Callable[[PlacedRecord, KnownVersion], bool]
"""Whether a record's stored instance is, element by element, a version that is committed."""
OnConflict = Callable[[PlacedRecord, KnownVersion], None]
"""Makes a conflict durable in the journal, given the version that stays current."""
OnSame = Callable[[Sequence[PlacedRecord]], None]
"""Makes durable in the journal that these came to Same, and that versions stand which other messages brought."""


class Catalog(Protocol):
    """The writing end; one per worker process, where one thread commits."""

    def known(self, tenant: str, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[KnownVersion]]:
        """What is committed under these UIDs: a hint that saves work and decides nothing."""

    def commit_batch(
        self,
        placed: Sequence[PlacedRecord],
        *,
        equal: Equal,
        on_conflict: OnConflict,
        on_same: OnSame | None = None,
        segments: Sequence[SegmentKey] = (),
    ) -> Sequence[Verdict]:
        """One transaction: insert, judge from what the inserts returned, count, queue outgoing events.

        `segments` are those whose indexes hold these records; `has_committed` knows them afterwards.

        Idempotent: the same records again give `Same`. `equal` is asked only under an unequal digest and a known UID.
        `on_conflict` is called inside the transaction before it ends, with the version that stays current: it makes the
        verdict durable in the journal, so that a rebuild decides the same. `on_same` likewise, once, where several
        processes put: there the order of segments is not that of commits.

        Several processes may commit at once, and two of them the same messages: one of them is New, the other Same.

        Raises:
            SegmentCondemned: nothing was committed; put the batch again first.
            Retryable: nothing was committed; or the database went away in the last moment and nobody knows. The same
                batch again is right in both cases.
        """

    def relocate(self, placed: PlacedRecord, *, lost: MemberLocation) -> bool:
        """Let the version with this very content lie where `placed` does; False if it does not lie at `lost` any more.

        Raises:
            Retryable: do it again.
        """

    def has_committed(self, segment: str) -> bool:
        """Whether a batch was committed with this segment, or a version lies in it."""

    def apply(self, decision: Decision, *, decision_id: str, decided_at: str, decided_by: str) -> bool:
        """Execute an operator's decision; False if its object does not exist. Idempotent by `decision_id`."""

    def load_attempts(self, stream: str) -> str | None:
        """The page that `save_attempts` wrote last for `stream`; None if there was none."""

    def save_attempts(self, stream: str, page: str) -> None:
        """Keep `page` for `stream`, for workers that share no disk; durable on return. From any thread.

        Raises:
            Retryable: it may not be kept.
        """

    def close(self) -> None:
        """Release the database."""


# ---- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """On whose behalf, and in which tenant, something is read. Every read takes one."""

    principal: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """Single value or list of UID matching (PS3.4 C.2.2.2.1, C.2.2.2.2)."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wildcard:
    """Wild card matching with ``*`` and ``?`` (PS3.4 C.2.2.2.4)."""

    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Range matching of dates and times (PS3.4 C.2.2.2.5); an empty end is open. Both ends are included."""

    low: str = ""
    high: str = ""


Match = OneOf | Wildcard | Between
#: Quarantine entries that are given at one time.
QUARANTINED_MAX: Final = 10_000
Level = Literal["study", "series", "instance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One search. Keywords are DICOM keywords (``PatientName``); those of `KEYS` up to the level may be matched."""

    level: Level
    matches: Mapping[str, Match]
    limit: int
    offset: int = 0
    #: The study list's search as you type: matched against patient name, patient id and accession number.
    text: str = ""


class InstanceState(StrEnum):
    """Whether readers see an instance (PS3 knows no such thing; it is ours)."""

    VISIBLE = "visible"
    HELD = "held"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One row of an answer: attribute values by DICOM keyword (parents' included), and marks of ours.

    Values are text as stored; multiple values are joined by a backslash, as DICOM writes them.
    `values` of a study also has ModalitiesInStudy, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances; of a
    series NumberOfSeriesRelatedInstances.
    """

    values: Mapping[str, str]
    held_count: int = 0
    conflict_count: int = 0
    received_at: str = ""
    #: Whether the study came under different Patient IDs; the one in `values` is the first.
    is_mixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """The current version of a visible instance, and where its bytes are."""

    study_instance_uid: str
    series_instance_uid: str
    record: InstanceRecord
    location: MemberLocation


class CatalogReader(Protocol):
    """The reading end: read-only, thread-safe, sees whole batches."""

    def search(self, scope: Scope, query: Query) -> Sequence[Found]:
        """Rows in a stable order (newest studies first; series by number; instances by number, then UID)."""

    def count(self, scope: Scope, query: Query) -> int:
        """How many rows `query` would give without its limit and offset, counted up to 10,000."""

    def instances(
        self, scope: Scope, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Iterator[Readable]:
        """Current versions of the visible instances below a study, series or instance; empty if there are none."""

    def versions(self, scope: Scope, sop_uid: str) -> Sequence[tuple[KnownVersion, InstanceRecord]]:
        """Every version of an instance, in order of commit."""

    def conflicts(self, scope: Scope) -> Sequence[str]:
        """SOP Instance UIDs with more than one version, newest conflict first."""

    def quarantined(
        self, scope: Scope, *, include_closed: bool = False, entry_id: str = "", about: str = ""
    ) -> Sequence[Mapping[str, Any]]:
        """Quarantine entries: id, reason, detail, received_at, calling_ae, called_ae, state, location.

        In order of receipt, `QUARANTINED_MAX` at most; the one of `entry_id`; or those whose sender named `about` as
        their study or instance.
        """

    def trace(self, scope: Scope, uid: str) -> Sequence[Mapping[str, Any]]:
        """Everything known of a study, series or instance: a row per version with its attributes, digests, segment,
        warnings, kept reason, verdict, times, log position; no patient attributes. Versions that came under the study
        or series and are filed elsewhere, as a conflict, are among them."""

    def placed(self) -> Iterator[tuple[PlacedRecord, bool]]:
        """Every version of every tenant and whether it is current, for verify and for comparing catalogs."""

    def counters(self, tenant: str) -> Mapping[str, int]:
        """studies, series, instances, versions, conflicts, mixed, quarantined, decisions, bytes: kept by commits,
        never counted. Whatever changes what readers are told changes one of them."""

    def close(self) -> None:
        """Release the database."""
