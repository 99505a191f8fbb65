"""What a crash left between put and commit: segments whose records no transaction has. They are committed at the start.

A rebuild replays segments in the order of their ids. If such a segment were left to lie, and its messages were put
again in another one, the rebuild would let the receipts of the first stand, the live catalog those of the second. So
it is committed before anything else is put: the messages come again from the log and are held already.

Whoever puts stops at the first batch that it cannot commit (`workers.committing`), so such segments are the newest of
the archive and no more than one batch can leave. Where there are more, the catalog is a copy from another day: the
decisions made since are in the journal, and only a rebuild knows how to follow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, takewhile

from archive.catalog import Catalog, Equal, OnConflict
from archive.journal import DecisionNoted, decode_entry
from archive.layout import JOURNAL, id_of
from archive.segment_store import SegmentStore
from runtime.errors import Misconfigured
from runtime.logs import get_logger
from schemas.identifiers import SegmentKey
from schemas.record import PlacedRecord, decode_placed
from segments.tar import SegmentDamaged


def require_empty(store: SegmentStore) -> None:
    """Before a catalog is made: whether there is nothing that it would not know.

    Raises:
        Misconfigured: the archive holds committed instances.
    """
    if any(_batches(store)):
        raise Misconfigured(
            "the catalog is missing and the archive is not empty: stop sansfilm and run sansfilm archive rebuild"
        )


def unfinished(store: SegmentStore, catalog: Catalog, *, segments_max: int) -> Sequence[SegmentKey]:
    """The segments put after the last commit, in the order of their puts.

    Raises:
        Misconfigured: there are more than `segments_max`, or decisions were made since; the catalog is not the one
            that these segments were put for.
        Retryable: the store or the catalog is away.
    """
    after = takewhile(lambda key: not catalog.has_committed(key), _batches(store))
    found = list(islice(after, segments_max + 1))
    if len(found) > segments_max or (found and _decided_since(store, found[-1])):
        raise Misconfigured(
            "the archive is newer than the catalog, which must be a copy from another day: "
            "stop sansfilm and run sansfilm archive rebuild"
        )
    return found[::-1]


def commit_unfinished(
    store: SegmentStore, catalog: Catalog, keys: Sequence[SegmentKey], *, equal: Equal, on_conflict: OnConflict
) -> None:
    """Commit `keys` in this order; nothing may have been put since they were found.

    Raises:
        Retryable: the rest is still unfinished; call it again.
    """
    for key in keys:
        placed = [one for one in map(decode_placed, store.index(key)) if _is_there(store, one)]
        verdicts = catalog.commit_batch(placed, equal=equal, on_conflict=on_conflict, segments=[key])
        get_logger().warning("unfinished_segment_committed", segment=key, members=len(verdicts))


def _batches(store: SegmentStore) -> Iterator[SegmentKey]:
    """The segments that a worker put, newest first. Claim checks are none: some batch's index names them, or will."""
    for key in store.newest_first():
        try:
            if store.index(key):
                yield key
        except FileNotFoundError:  # a claim check, collected meanwhile
            continue
        except SegmentDamaged as error:  # verify and rebuild say more of it
            get_logger().error("segment_index_damaged", segment=key, error=str(error))


def _decided_since(store: SegmentStore, oldest: SegmentKey) -> bool:
    for key in store.keys(f"{JOURNAL}/"):
        if id_of(key) > id_of(oldest):
            with suppress(SegmentDamaged, ValueError):
                if isinstance(decode_entry(store.journal_entry(key)), DecisionNoted):
                    return True
    return False


def _is_there(store: SegmentStore, placed: PlacedRecord) -> bool:
    """Whether the bytes are; a claim check that turned out to be a duplicate may have been removed."""
    try:
        store.read(placed.location, 0, 0)
    except FileNotFoundError:
        return False
    return True
