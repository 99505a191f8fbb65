"""Which store and which catalog: chosen by the settings alone. A folder and SQLite, or S3 and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive.catalog import CatalogReader
from archive.local_store import LocalSegmentStore
from archive.segment_store import SegmentStore
from archive.sql_catalog import SqlCatalog, open_catalog, open_postgres_catalog
from archive.sql_reader import open_postgres_reader, open_reader
from runtime.clock import Clock, SystemClock
from runtime.settings import CommonSettings, EdgeSettings
from segments.disk import Disk, SystemDisk

if TYPE_CHECKING:  # the client takes time to load, and the embedded form has no use for it
    from archive.s3_claim_check import S3Uploads


def open_store(settings: CommonSettings, *, disk: Disk | None = None, clock: Clock | None = None) -> SegmentStore:
    """The archive's segments; closed by its owner.

    Raises:
        Misconfigured: the object store refuses us; says what to set.
        Retryable: it is away.
    """
    if settings.store_url:
        from archive.s3_store import open_s3_store

        return open_s3_store(settings, clock)
    return LocalSegmentStore(settings.archive_dir, disk=disk or SystemDisk(), clock=clock or SystemClock())


def open_uploads(settings: EdgeSettings, clock: Clock) -> S3Uploads:
    """What an edge does with the object store.

    Raises:
        Misconfigured: a setting is wrong.
    """
    from archive.s3_access import access_from
    from archive.s3_claim_check import S3Uploads

    return S3Uploads(access_from(settings), object_max_bytes=settings.object_max_bytes, clock=clock)


def open_worker_catalog(settings: CommonSettings, *, clock: Clock | None = None) -> SqlCatalog:
    """The catalog for writing; closed by its owner.

    Raises:
        Misconfigured: it cannot be reached or is not as it must be; says what to do.
    """
    if url := settings.catalog_url.get_secret_value():
        from archive.postgres import bounds_of

        return open_postgres_catalog(url, bounds=bounds_of(settings), clock=clock)
    return open_catalog(settings.catalog_path, clock=clock)


def open_catalog_reader(settings: CommonSettings) -> CatalogReader:
    """The catalog for reading; closed by its owner. A local one may not be there yet: it is then empty.

    Raises:
        Misconfigured: it cannot be reached or is not as it must be; says what to do.
    """
    if url := settings.catalog_url.get_secret_value():
        from archive.postgres import bounds_of

        return open_postgres_reader(url, bounds=bounds_of(settings))
    return open_reader(settings.catalog_path)


def is_embedded(settings: CommonSettings) -> bool:
    """Whether the archive has one writer, on this machine: neither segments nor catalog are on a server."""
    return not settings.store_url and not settings.catalog_url.get_secret_value()
