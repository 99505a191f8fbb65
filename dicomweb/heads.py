"""A bounded memory of what was computed from instances' heads, so that opening a study again costs no reads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

CACHE_MAX_BYTES: Final = 64 * 1024 * 1024


class HeadCache:
    """Least recently used out first; the sum of the values' sizes stays under `max_bytes`. Thread-safe."""

    def __init__(self, max_bytes: int = CACHE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """What the values take now."""
        return self._size_bytes

    def get(self, key: Hashable) -> bytes | None:
        """What was put under `key`, if it is still here."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: Hashable, value: bytes) -> None:
        """Remember `value`; one that alone fills a quarter of the cache is not kept."""
        if len(value) > self._max_bytes // 4:
            return
        with self._lock:
            self._size_bytes += len(value) - len(self._entries.pop(key, b""))
            self._entries[key] = value
            while self._size_bytes > self._max_bytes:
                _, evicted = self._entries.popitem(last=False)
                self._size_bytes -= len(evicted)
