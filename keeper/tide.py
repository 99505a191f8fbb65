"""Tells a restored catalog from the one that has kept this archive, and raises the tide so that it can be told.

The tide goes up once a minute, in the catalog and then in the archive's own file. A backup of more than a minute ago is
behind that file. Of a younger one nothing is told; what it lacks is not given up: the collector looks at content.
"""

from __future__ import annotations

from dataclasses import dataclass

from archive import tide
from archive.keeping import KeeperCatalog
from archive.segment_store import SegmentStore
from runtime import metrics
from runtime.errors import Retryable
from runtime.faults import reach
from runtime.logs import get_logger


class Restored(Retryable):
    """The catalog was restored or made anew: nothing is collected or compacted until `sansfilm archive reconcile`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tide:
    """Used by one thread, as its catalog is."""

    store: SegmentStore
    catalog: KeeperCatalog

    def require_current(self) -> None:
        """Raises Restored, Retryable."""
        written = tide.read(self.store)  # first: the catalog only goes on
        restored = tide.is_restored(written, self.catalog.life())
        metrics.KEEPER_REFUSES.set(int(restored))
        if restored:
            get_logger().error("catalog_was_restored", hint="run sansfilm archive reconcile")
            raise Restored("the catalog was restored: run sansfilm archive reconcile")

    def run(self) -> None:
        """Look, then raise the tide. Raises Restored, Retryable."""
        self.require_current()
        life = self.catalog.raise_tide()
        reach("tide.raised")
        tide.write(self.store, life)
