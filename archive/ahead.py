"""Several requests to a store on their way at once, with the answers in the order that was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

#: Items looked at at once.
THREADS: Final = 4
T = TypeVar("T")
R = TypeVar("R")


def ahead(ask: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Each item with what `ask` gives for it, or raises; `ask` runs in threads, at most `THREADS` items ahead."""
    with ThreadPoolExecutor(THREADS, "ahead") as threads:
        running: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            running.append((item, threads.submit(ask, item)))
            if len(running) > THREADS:
                yield _answered(running)
        while running:
            yield _answered(running)


def _answered(running: deque[tuple[T, Future[R]]]) -> tuple[T, R]:
    item, answer = running.popleft()
    return item, answer.result()
