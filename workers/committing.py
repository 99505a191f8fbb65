"""One thread that puts and commits for all lanes: store and catalog have one writer.

After a batch that could not be concluded nothing more is put or committed by this process. So what was put and not
committed is the newest of the archive when the next start looks for it (`archive.unfinished`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from runtime.retries import Stopped


class Committer:
    """Runs conclusions of batches one after the other, until one fails."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "commit")
        self._has_failed = False

    def submit(self, conclude: Callable[[], None]) -> Future[None]:
        """Put and commit a batch after those before it.

        The future raises what `conclude` raises, or `Stopped` if an earlier one failed: the batch stays in the log.
        """
        return self._thread.submit(self._run, conclude)

    def close(self) -> None:
        """Wait for what was submitted."""
        self._thread.shutdown()

    def _run(self, conclude: Callable[[], None]) -> None:
        if self._has_failed:
            raise Stopped
        try:
            conclude()
        except BaseException:
            self._has_failed = True
            raise
