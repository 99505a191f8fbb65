"""The lanes that all processes of one data folder have given to studies: shared by them, and kept over restarts.

A table in an SQLite file, with the rollback journal (write-ahead logging has a bug with several writers before SQLite
3.51.3) and without syncs: a process may be killed at any time, and what a power cut takes is decided again by rule.
For the same reason no failure of it is anybody's business but the log's: whoever asks gets an answer.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from runtime.clock import Clock, SystemClock
from runtime.lifecycle import Deadline
from runtime.logs import get_logger
from runtime.metrics import LANES_NOT_KEPT
from schemas.message import Lane

#: Studies kept; those that nobody has asked about for the longest time go first.
STUDIES_MAX: Final = 100_000
#: Longest wait for another process's transaction, which takes well under a millisecond.
_WAIT_S: Final = 0.25
_LOCK_POLL_S: Final = 0.005
#: After a failure the store is left alone for so long: a study must not wait for it again and again.
_PAUSE_S: Final = 60.0
#: What is over `STUDIES_MAX` is looked for after so many studies.
_PRUNE_EVERY: Final = 1000
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS decided (
        tenant TEXT NOT NULL, study TEXT NOT NULL, lane TEXT NOT NULL, asked_us INTEGER NOT NULL,
        PRIMARY KEY (tenant, study)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS decided_by_age ON decided (asked_us);
"""
_DECIDE: Final = """
    INSERT INTO decided (tenant, study, lane, asked_us) VALUES (?, ?, ?, ?)
    ON CONFLICT (tenant, study) DO UPDATE SET asked_us = excluded.asked_us
    RETURNING lane
"""
_PRUNE: Final = """
    DELETE FROM decided WHERE (tenant, study) IN
        (SELECT tenant, study FROM decided ORDER BY asked_us DESC LIMIT -1 OFFSET ?)
"""


class LaneStore:
    """The store of one process; thread-safe, closed by its owner. The file is made when the first study comes."""

    def __init__(
        self,
        path: Path,
        *,
        studies_max: int = STUDIES_MAX,
        clock: Clock | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._path = path
        self._studies_max = studies_max
        self._clock = clock or SystemClock()
        self._pause = pause
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._asked = 0
        self._failing = False
        self._again_s = 0.0

    def decide(self, tenant: str, study_uid: str, lane: Lane) -> Lane:
        """The lane that the study has; `lane` from now on if it has none, or if the store cannot say.

        Blocks for a transaction, which syncs nothing; for a quarter of a second, once a minute, where something is
        wrong.
        """
        with self._lock:
            if self._failing and self._clock.monotonic_s() < self._again_s:
                LANES_NOT_KEPT.inc()
                return lane
            try:
                decided = self._decide(tenant, study_uid, lane)
            except (sqlite3.Error, OSError, ValueError) as error:
                self._fail(error)
                return lane
            self._works()
            return decided

    def close(self) -> None:
        """Close the file. The store may be used again."""
        with self._lock:
            self._disconnect()

    def _decide(self, tenant: str, study_uid: str, lane: Lane) -> Lane:
        if self._connection is None:
            self._connection = self._open()
        asked_us = int(self._clock.now().timestamp() * 1_000_000)
        (found,) = self._connection.execute(_DECIDE, (tenant, study_uid, lane.value, asked_us)).fetchall()[0]
        if self._asked % min(_PRUNE_EVERY, self._studies_max) == 0:
            self._connection.execute(_PRUNE, (self._studies_max,))
        self._asked += 1
        return Lane(found)

    def _open(self) -> sqlite3.Connection:
        """The file, sound; one that is not is replaced, by one process at a time."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            try:
                return self._connect()
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in _CORRUPT:
                    raise
            get_logger().warning("lane_store_replaced", path=str(self._path))
            self._path.unlink()
            self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode=PERSIST", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                damaged = sqlite3.DatabaseError("the file is damaged")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process opens or replaces the file meanwhile. Raises OSError if one does for too long."""
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = Deadline(_WAIT_S, self._clock.monotonic_s)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if deadline.passed:
                        raise
                    self._pause(_LOCK_POLL_S)
            yield
        finally:
            os.close(lock)

    def _fail(self, error: Exception) -> None:
        LANES_NOT_KEPT.inc()
        self._disconnect()
        self._again_s = self._clock.monotonic_s() + _PAUSE_S
        if not self._failing:
            self._failing = True
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            get_logger().warning("lane_store_failed", path=str(self._path), error=name)

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            get_logger().info("lane_store_works", path=str(self._path))

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
