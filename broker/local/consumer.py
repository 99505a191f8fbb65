"""The reading end of the local log."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from broker.local.file_reader import FileReader
from broker.local.layout import DATA_SUFFIX, MARK_SUFFIX, WORKERS, FileName, is_name, lane_folder, stream_of
from broker.local.positions import Committed, PositionsFile, other_groups, positions_path
from broker.log import Position, Taken
from runtime.clock import Clock, SystemClock
from runtime.errors import Misconfigured
from runtime.faults import reach
from schemas.message import Lane
from segments.disk import Disk, SystemDisk, mapped_errors
from segments.sweep import remove_orphan, sweep_parts

#: A quiet log is looked at after 1 ms, then ever more rarely: what arrives in a pause waits 25 ms at most.
_PAUSE_S_MIN, _PAUSE_S_MAX, _PAUSE_GROWTH = 0.001, 0.025, 1.5


class LocalConsumer:
    """A `broker.log.Consumer` of one lane on files of this machine; one at a time for each group.

    Writers take turns, so that a busy one does not starve the others; the files of one writer are read in the order in
    which they were written. Files that every group has committed to their end are deleted.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        lane: Lane,
        group: str = WORKERS,
        disk: Disk | None = None,
        clock: Clock | None = None,
        pause: Callable[[float], object] = time.sleep,
        lock_timeout_s: float = 5.0,
    ) -> None:
        """Goes on where the group left off. `pause` waits for a number of seconds.

        Raises:
            Misconfigured: another process reads this lane for this group and did not stop within `lock_timeout_s`.
            Retryable: the folder cannot be read or written now.
        """
        if not is_name(group):
            raise Misconfigured(f"a group of consumers cannot be called {group!r}: use letters, digits, _ and -")
        self._lane = lane
        self._group = group
        self._disk = disk or SystemDisk()
        self._clock = clock or SystemClock()
        self._pause = pause
        self._folder = lane_folder(log_dir, lane)
        self._disk.make_folder(self._folder)
        self._lock = self._locked(lock_timeout_s)
        #: By writer, oldest file first.
        self._readers: dict[FileName, FileReader] = {}
        self._known: set[str] = set()
        self._last_writer = ""
        sweep_parts(self._disk, self._folder)
        self._sweep_marks()
        self._positions = PositionsFile(self._disk, positions_path(self._folder, group))

    def take(self, *, max_messages: int, max_bytes: int, wait_s: float) -> Sequence[Taken]:
        """See `broker.log.Consumer.take`."""
        deadline_s = self._clock.monotonic_s() + wait_s
        pause_s = _PAUSE_S_MIN
        while True:
            self._discover()
            taken = self._collect(max_messages, max_bytes)
            remaining_s = deadline_s - self._clock.monotonic_s()
            if taken or remaining_s <= 0:
                return taken
            self._remove_done()
            self._pause(min(pause_s, remaining_s))
            pause_s = min(pause_s * _PAUSE_GROWTH, _PAUSE_S_MAX)

    def commit(self, positions: Iterable[Position]) -> None:
        """See `broker.log.Consumer.commit`; positions of files that are gone are ignored.

        Raises:
            OutOfSpace, Retryable: perhaps not durable; commit again.
        """
        self._discover()
        streams = {stream_of(self._lane, name): reader for name, reader in self._readers.items()}
        for position in positions:
            if (reader := streams.get(position.stream)) is not None:
                reader.commit(position.next_offset)
        self._save()
        reach("log.position_written")
        self._remove_done()

    def on_revoke(self, finish: Callable[[Collection[str]], None]) -> None:
        """See `broker.log.Consumer.on_revoke`: nothing is ever taken away from a group's one consumer."""

    def rewind(self) -> None:
        """See `broker.log.Consumer.rewind`."""
        for reader in self._readers.values():
            reader.rewind()

    def lag(self) -> Mapping[Lane, int]:
        """See `broker.log.Consumer.lag`: of this consumer's lane."""
        self._discover()
        return {self._lane: sum(reader.lag_messages for reader in self._readers.values())}

    def uncommitted_bytes(self) -> int:
        """See `broker.log.Consumer.uncommitted_bytes`: of this consumer's lane."""
        self._discover()
        return sum(reader.uncommitted_bytes for reader in self._readers.values())

    def close(self) -> None:
        """See `broker.log.Consumer.close`. May be called again."""
        for reader in self._readers.values():
            reader.close()
        self._positions.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _discover(self) -> None:
        """Meet the files that came since the last look."""
        with mapped_errors("list the log"), os.scandir(self._folder) as entries:
            unknown = [e.name for e in entries if e.name.endswith(DATA_SUFFIX) and e.name not in self._known]
        if not unknown:
            return
        self._known.update(unknown)
        for name in filter(None, (FileName.parse(file.removesuffix(DATA_SUFFIX)) for file in unknown)):
            self._readers[name] = FileReader(
                disk=self._disk,
                lane=self._lane,
                folder=self._folder,
                name=name,
                committed=self._positions.saved.get(str(name), Committed()),
            )
        self._readers = dict(sorted(self._readers.items()))

    def _collect(self, max_messages: int, max_bytes: int) -> list[Taken]:
        taken: list[Taken] = []
        size_bytes = 0
        for reader in self._in_turn():
            for one in reader.take(
                max_messages=max_messages - len(taken), max_bytes=max_bytes - size_bytes, at_least_one=not taken
            ):
                taken.append(one)
                size_bytes += len(one.message.value)
            if len(taken) >= max_messages or size_bytes >= max_bytes:
                break
        return taken

    def _in_turn(self) -> Iterator[FileReader]:
        """The files to read now: each writer's in order up to the first that is not at its end, another writer first
        each time."""
        by_writer = {writer: list(names) for writer, names in groupby(self._readers, lambda name: name.writer)}
        for writer in sorted(by_writer, key=lambda writer: (writer <= self._last_writer, writer)):
            self._last_writer = writer
            for name in by_writer[writer]:
                yield self._readers[name]
                if not self._readers[name].is_exhausted:
                    break

    def _save(self) -> None:
        """Positions of what is there, and of files whose removal is not yet durable."""
        wanted = {str(name): reader.committed for name, reader in self._readers.items() if reader.committed.next_offset}
        if wanted != self._positions.saved:
            self._positions.save(wanted)

    def _remove_done(self) -> None:
        """Delete what every group has done, after its positions are durable, and before they forget it."""
        done = [name for name, reader in self._readers.items() if reader.is_done and self._done_by_others(name, reader)]
        if not done:
            return
        for name in done:
            self._readers[name].remove()
        self._disk.sync_folder(self._folder)
        reach("log.deleted")
        for name in done:
            del self._readers[name]
            self._known.discard(f"{name}{DATA_SUFFIX}")

    def _done_by_others(self, name: FileName, reader: FileReader) -> bool:
        return all(
            str(name) in positions and positions[str(name)].next_offset >= reader.committed.next_offset
            for positions in other_groups(self._folder, self._group)
        )

    def _sweep_marks(self) -> None:
        """Remove marks whose file was deleted, or never appeared."""
        for path in self._folder.glob("*" + MARK_SUFFIX):
            if not path.with_suffix(DATA_SUFFIX).exists():
                remove_orphan(self._disk, path)

    def _locked(self, timeout_s: float) -> int:
        """Hold the group's lock file; a consumer that was killed a moment ago may still be dying."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        with mapped_errors("open the group's lock"):
            descriptor = os.open(
                self._folder / f"positions-{self._group}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640
            )
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic_s() >= deadline_s:
                    os.close(descriptor)
                    raise Misconfigured(f"another process already reads the log's lane {self._lane.value}") from None
                self._pause(_PAUSE_S_MAX)
            else:
                return descriptor
