"""Whether two stored members are equal element by element: asked only under a known UID and an unequal digest."""

from __future__ import annotations

from collections.abc import Callable

from archive.catalog import KnownVersion
from archive.segment_store import Comparer, SegmentStore
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
        try:
            (a, a_dataset), (b, b_dataset) = (split(store.read(member)) for member in (one, other))
            return equivalent(a_dataset, a.transfer_syntax, b_dataset, b.transfer_syntax, decode=decode)
        except (Retryable, MemoryError):
            raise
        except Rejected:
            return False
        except (FileNotFoundError, SegmentDamaged) as error:
            get_logger().error("comparison_without_bytes", segments=[one.segment, other.segment], error=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever a hostile data set provokes in a decoder
            get_logger().warning("comparison_failed", error=type(error).__name__)
            return False

    return equal


def versions_equal(compare: Comparer) -> Callable[[PlacedRecord, KnownVersion], bool]:
    """`compare` as `Catalog.commit_batch` asks it."""
    return lambda placed, version: compare(placed.location, version.location)
