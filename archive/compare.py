"""Whether two stored members are equal element by element: asked only under a known UID and an unequal digest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from archive.catalog import KnownVersion
from archive.segment_store import Buffer, Comparer, SegmentStore
from instances.equality import Decode, equivalent
from instances.part10 import split
from runtime.errors import Rejected, Retryable
from runtime.logs import get_logger
from schemas.record import MemberLocation, PlacedRecord
from segments.tar import SegmentDamaged


def comparer(store: SegmentStore, decode: Decode) -> Comparer:
    """A `Comparer` that reads both members; `decode` gives the samples of compressed pixel data.

    What cannot be compared, or is not there, is not equal: a further version is kept, and nothing is lost.
    """

    def equal(one: MemberLocation, other: MemberLocation) -> bool:
        about = (one.segment, other.segment)
        return same_content(partial(store.read, one), partial(store.read, other), decode=decode, about=about)

    return equal


def same_content(
    read_one: Callable[[], Buffer], read_other: Callable[[], Buffer], *, decode: Decode, about: Sequence[str] = ()
) -> bool:
    """The same of two Part-10 files, wherever they are read from; `about` names their segments.

    Raises:
        Retryable: they cannot be read now.
    """
    try:
        (a, a_dataset), (b, b_dataset) = split(read_one()), split(read_other())
        return equivalent(a_dataset, a.transfer_syntax, b_dataset, b.transfer_syntax, decode=decode)
    except (Retryable, MemoryError):
        raise
    except Rejected:
        return False
    except (FileNotFoundError, SegmentDamaged) as error:
        get_logger().error("comparison_without_bytes", segments=list(about), error=str(error))
        return False
    except Exception as error:  # noqa: BLE001 - whatever a hostile data set provokes in a decoder
        get_logger().warning("comparison_failed", error=type(error).__name__)
        return False


def versions_equal(compare: Comparer) -> Callable[[PlacedRecord, KnownVersion], bool]:
    """`compare` as `Catalog.commit_batch` asks it."""
    return lambda placed, version: compare(placed.location, version.location)
