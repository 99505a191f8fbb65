"""A real archive for the readers' tests: members are framed, put and committed as the worker does it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydicom.dataset import Dataset
from starlette.applications import Starlette

from archive.catalog import Conflict, Scope, Verdict
from archive.local_store import LocalSegmentStore
from archive.segment_store import PreparedMember
from archive.sql_catalog import SqlCatalog, open_catalog
from archive.sql_reader import SqlCatalogReader, open_reader
from dicomweb.app import create_app
from instances.decode import IsolatedDecoder
from instances.description import describe
from instances.part10 import file_header, split
from instances.transcode import Transcoded, transcode, wire_sha256
from runtime.settings import WebSettings
from schemas.message import INSTANCE_RECEIVED, Lane, MessageAttributes
from schemas.record import InstanceRecord, PlacedRecord
from tests.datasets import part10

BASE = "http://127.0.0.1:8080"


@dataclass(slots=True)
class Library:
    """An archive in a folder, written and read in one test."""

    folder: Path
    decoder: IsolatedDecoder
    catalog: SqlCatalog = field(init=False)
    store: LocalSegmentStore = field(init=False)
    reader: SqlCatalogReader = field(init=False)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.catalog = open_catalog(self.settings().catalog_path)
        self.store = LocalSegmentStore(self.settings().archive_dir)
        self.reader = open_reader(self.settings().catalog_path)

    def settings(self, **changes: object) -> WebSettings:
        """Settings of a web process over this archive."""
        given = {"data_dir": self.folder / "data", "viewer_dir": self.folder / "no-viewer", **changes}
        return WebSettings(**given)  # type: ignore[arg-type]

    def add(
        self, *files: Dataset | bytes, tenant: str = "default", htj2k: bool = False, syntax: str = ""
    ) -> Sequence[Verdict]:
        """Commit one batch; a data set is encoded in `syntax` (Explicit VR LE), a file is taken as it is."""
        encoded = [one if isinstance(one, bytes) else part10(one, syntax or "1.2.840.10008.1.2.1") for one in files]
        members = [self._member(file, tenant, htj2k=htj2k) for file in encoded]
        locations = self.store.put(tenant, members).locations
        placed = [
            PlacedRecord(record=one.record, location=location) for one, location in zip(members, locations, strict=True)
        ]
        return self.catalog.commit_batch(placed, equal=lambda *_: False, on_conflict=lambda *_: None)

    def conflict(self, first: Dataset, second: Dataset) -> None:
        """Commit other content under a known UID."""
        self.add(first)
        [verdict] = self.add(second)
        assert isinstance(verdict, Conflict)

    def app(self, **changes: object) -> Starlette:
        """The application over this archive."""
        return create_app(self.settings(**changes), self.reader, self.store, self.decoder)

    def client(self, app: Starlette | None = None) -> httpx.AsyncClient:
        """A client of the application, without a network."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(app or self.app()), base_url=BASE)

    def records(self, study: str) -> Sequence[InstanceRecord]:
        """What is visible of a study."""
        scope = Scope(principal="test", tenant="default")
        return [readable.record for readable in self.reader.instances(scope, study)]

    def close(self) -> None:
        """Release everything."""
        self.reader.close()
        self.catalog.close()

    def _member(self, file: bytes, tenant: str, *, htj2k: bool) -> PreparedMember:
        meta, dataset = split(file)
        described = describe(dataset, meta.transfer_syntax)
        outcome = transcode(dataset, meta.transfer_syntax, described, max_bytes=1 << 30) if htj2k else None
        transcoded = outcome if isinstance(outcome, Transcoded) else None
        stored_syntax = transcoded.transfer_syntax if transcoded else meta.transfer_syntax
        instance, pixels = described.instance, described.pixels
        header = file_header(
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            transfer_syntax=stored_syntax,
        )
        pixel_offset, frames = 0, tuple(pixels.frames) if pixels else ()
        if pixels:
            pixel_offset = transcoded.pixel_offset if transcoded else pixels.value_offset
            frames = tuple(transcoded.frames) if transcoded else frames
        number = next(self._numbers)
        record = InstanceRecord(
            attributes=MessageAttributes(
                id=f"01920000-0000-7000-8000-{number:012d}",
                type=INSTANCE_RECEIVED,
                source="/edge/test",
                time=f"2026-03-01T08:00:{number % 60:02d}.000000Z",
                tenant=tenant,
                lane=Lane.ROUTINE,
            ),
            patient=described.patient,
            study=described.study,
            series=described.series,
            instance=instance,
            wire_sha256=wire_sha256(dataset),
            wire_size_bytes=len(dataset),
            pixel_sha256=hashlib.sha256(dataset).hexdigest() if pixels else "",
            received_transfer_syntax=meta.transfer_syntax,
            stored_transfer_syntax=stored_syntax,
            recipe=dict(transcoded.recipe) if transcoded else {},
            warnings=described.warnings,
            pixel_offset=len(header) + pixel_offset if pixels else 0,
            frames=tuple((len(header) + offset, size) for offset, size in frames),
        )
        name = f"{tenant}/{described.study.study_instance_uid}/{instance.sop_instance_uid}.{number}.dcm"
        parts = [header, *(transcoded.parts if transcoded else [dataset])]
        return PreparedMember(record=record, name=name, provenance={}, parts=parts)
