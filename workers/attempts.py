"""Counts deaths, and isolates the message that kills its worker.

The book has a page for each stream of the log: a lane of the local log, a partition of a topic. A page is durable
before what it says happens; it is written once when the stream is resumed, at its first batch, and before every message
only while messages go one by one; in good times it costs nothing. Whoever resumes a stream next reads what the last one
left: in a file of this machine, or in the catalog where the next one may be another machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from segments.disk import Disk

#: Unclean resumptions at one message after which messages go one by one.
RESUMPTIONS_MAX = 2
#: Deaths alone in flight after which a message is quarantined.
DEATHS_MAX = 3


class AttemptPages(Protocol):
    """Where pages are kept."""

    def load_attempts(self, stream: str) -> str | None:
        """The page last saved; None if there is none."""

    def save_attempts(self, stream: str, page: str) -> None:
        """Keep a page; durable on return. Raises Retryable."""


class FilePages:
    """Pages in small files of a folder, each replaced atomically and synced."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def load_attempts(self, stream: str) -> str | None:
        """See `AttemptPages.load_attempts`."""
        try:
            return self._path(stream).read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def save_attempts(self, stream: str, page: str) -> None:
        """See `AttemptPages.save_attempts`."""
        self._disk.replace(self._path(stream), page.encode())

    def _path(self, stream: str) -> Path:
        return self._folder / f"attempts-{stream}.json"


@dataclass(frozen=True, slots=True)
class _Page:
    first_id: str = ""
    resumptions: int = 0
    deaths: dict[str, int] = field(default_factory=dict)


class AttemptBook:
    """The attempts of one lane; used from its thread only."""

    def __init__(self, pages: AttemptPages) -> None:
        self._pages = pages
        #: By stream, since it was resumed; and those of them whose page is not durable yet.
        self._open: dict[str, _Page] = {}
        self._unsaved: set[str] = set()

    def begin(self, stream: str, first_id: str) -> bool:
        """Note that work on `stream` (re)starts at message `first_id`; True if messages must go one by one.

        Only the first call after a start, or after `forget`, counts; it is durable on return.

        Raises:
            Retryable: as from every method that writes; call it again, it counts once.
        """
        if stream not in self._open:
            self._open[stream] = _resumed(self._read(stream), first_id)
            self._unsaved.add(stream)
        if stream in self._unsaved:
            self._write(stream, self._open[stream])
        return self._open[stream].resumptions >= RESUMPTIONS_MAX

    def is_killer(self, stream: str, message_id: str) -> bool:
        """Whether `message_id` was alone in flight at enough deaths to be quarantined."""
        return self._page(stream).deaths.get(message_id, 0) >= DEATHS_MAX

    def attempt(self, stream: str, message_id: str) -> None:
        """Note, durably, that `message_id` goes alone now; the next attempt or `done` takes it back."""
        page = self._page(stream)
        self._write(stream, replace(page, deaths={message_id: page.deaths.get(message_id, 0) + 1}))

    def done(self, streams: Collection[str] | None = None) -> None:
        """What these streams began with is committed, or (all of them) the worker stops in order: forget the deaths."""
        for stream, page in list(self._open.items()):
            if page.first_id and (streams is None or stream in streams):
                self._write(stream, _Page())

    def forget(self, streams: Collection[str]) -> None:
        """These streams go to another worker: should they come back, that is a resumption."""
        for stream in streams:
            self._open.pop(stream, None)

    def _page(self, stream: str) -> _Page:
        return self._open.setdefault(stream, self._read(stream))

    def _read(self, stream: str) -> _Page:
        try:
            return _Page(**json.loads(self._pages.load_attempts(stream) or ""))
        except (ValueError, TypeError):
            return _Page()

    def _write(self, stream: str, page: _Page) -> None:
        self._pages.save_attempts(stream, json.dumps(asdict(page)))
        self._open[stream] = page
        self._unsaved.discard(stream)


def _resumed(page: _Page, first_id: str) -> _Page:
    if page.first_id == first_id:
        return _Page(first_id=first_id, resumptions=page.resumptions + 1, deaths=page.deaths)
    if first_id in page.deaths:  # it died alone in flight, those before it are committed
        return _Page(first_id=first_id, resumptions=RESUMPTIONS_MAX, deaths=page.deaths)
    return _Page(first_id=first_id)
