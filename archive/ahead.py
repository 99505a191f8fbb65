"""Several requests to a store on their way at once, with the answers in the order that was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

#: Items looked at at once, and their size in all: what is larger is looked at alone.
THREADS: Final = 4
BYTES_MAX: Final = 32 * 1024 * 1024
T = TypeVar("T")
R = TypeVar("R")


def ahead(
    ask: Callable[[T], R], items: Iterable[T], size_bytes: Callable[[T], int] = lambda _: 0
) -> Iterator[tuple[T, R]]:
    """Each item with what `ask` gives for it, or raises; `ask` runs in threads, a few items ahead."""
    with ThreadPoolExecutor(THREADS, "ahead") as threads:
        running: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            while running and not _has_room(running, size_bytes, item):
                yield _answered(running)
            running.append((item, threads.submit(ask, item)))
        while running:
            yield _answered(running)


def _has_room(running: deque[tuple[T, Future[R]]], size_bytes: Callable[[T], int], item: T) -> bool:
    return len(running) < THREADS and sum(size_bytes(one) for one, _ in running) + size_bytes(item) <= BYTES_MAX


def _answered(running: deque[tuple[T, Future[R]]]) -> tuple[T, R]:
    item, answer = running.popleft()
    return item, answer.result()
