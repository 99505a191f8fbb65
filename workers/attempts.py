"""Counts deaths, and isolates the message that kills its worker.

The book is a small file per lane, replaced atomically and synced. It is written once per start, at the first batch, and
before every message only while the lane goes message by message; in good times it costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segments.disk import Disk

#: Unclean resumptions at one message after which the lane goes message by message.
RESUMPTIONS_MAX = 2
#: Deaths alone in flight after which a message is quarantined.
DEATHS_MAX = 3


@dataclass(slots=True)
class _Page:
    first_id: str = ""
    resumptions: int = 0
    deaths: dict[str, int] = field(default_factory=dict)


class AttemptBook:
    """The attempts of one lane; used from its thread only."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._page = self._read()
        self._resumed = False

    def begin(self, first_id: str) -> bool:
        """Note that work (re)starts at message `first_id`; True if the lane must go message by message.

        Only the first call after a start counts; it is durable on return.
        """
        if not self._resumed:
            self._resumed = True
            self._page = self._resumption(first_id)
            self._write()
        return self._page.resumptions >= RESUMPTIONS_MAX

    def is_killer(self, message_id: str) -> bool:
        """Whether `message_id` was alone in flight at enough deaths to be quarantined."""
        return self._page.deaths.get(message_id, 0) >= DEATHS_MAX

    def attempt(self, message_id: str) -> None:
        """Note, durably, that `message_id` goes alone now; the next attempt or `done` takes it back."""
        self._page.deaths = {message_id: self._page.deaths.get(message_id, 0) + 1}
        self._write()

    def done(self) -> None:
        """The batch that began is committed, or the worker stops in order: forget the deaths."""
        if self._page.first_id:
            self._page = _Page()
            self._write()

    def _resumption(self, first_id: str) -> _Page:
        page = self._page
        if page.first_id == first_id:
            return _Page(first_id=first_id, resumptions=page.resumptions + 1, deaths=page.deaths)
        if first_id in page.deaths:  # it died alone in flight, those before it are committed
            return _Page(first_id=first_id, resumptions=RESUMPTIONS_MAX, deaths=page.deaths)
        return _Page(first_id=first_id)

    def _read(self) -> _Page:
        try:
            return _Page(**json.loads(self._path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return _Page()

    def _write(self) -> None:
        self._disk.replace(self._path, json.dumps(asdict(self._page)).encode())
