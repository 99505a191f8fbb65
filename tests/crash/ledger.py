"""The senders' own account: what they offered, and what was acknowledged with Success."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass

#: SOP Instance UID and SHA-256 of the data set.
Content = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One data set to be sent."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    dataset: bytes

    @property
    def content(self) -> Content:
        return self.sop_instance_uid, hashlib.sha256(self.dataset).hexdigest()

    @property
    def is_fileable(self) -> bool:
        return self.kind != "unfileable"


class Ledger:
    """What senders wrote down. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Fileable contents that a sender began to send.
        self.offered: set[Content] = set()
        #: Fileable contents that were acknowledged, and the kind of each.
        self.acknowledged: dict[Content, str] = {}
        #: Unfileable ones.
        self.unfileable_offered: set[Content] = set()
        self.unfileable_acknowledged: set[Content] = set()
        #: Answers other than Success, by status, and sendings that got no answer, by route.
        self.refusals: Counter[int] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.successes: Counter[str] = Counter()
        self._newest: dict[str, Content] = {}

    def offer(self, item: Item) -> None:
        """Note that `item` is about to be sent."""
        with self._lock:
            (self.offered if item.is_fileable else self.unfileable_offered).add(item.content)

    def acknowledge(self, item: Item, route: str) -> None:
        """Note that `item` was answered with Success."""
        with self._lock:
            self.successes[route] += 1
            if item.is_fileable:
                self.acknowledged[item.content] = item.kind
                self._newest[route] = item.content
            else:
                self.unfileable_acknowledged.add(item.content)

    def refuse(self, status: int) -> None:
        """Note an answer that is no Success."""
        with self._lock:
            self.refusals[status] += 1

    def lose(self, route: str) -> None:
        """Note that there was no answer."""
        with self._lock:
            self.unanswered[route] += 1

    @property
    def successes_total(self) -> int:
        with self._lock:
            return self.successes.total()

    def forget_newest(self) -> None:
        """What is `newest` from now on is acknowledged after this call."""
        with self._lock:
            self._newest = {}

    def newest(self) -> dict[str, Content]:
        """The content acknowledged last, by route."""
        with self._lock:
            return dict(self._newest)
