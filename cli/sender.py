"""Many files over several associations at once, and a summary of what was answered."""

from __future__ import annotations

import mmap
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cli.association import CONTEXTS_MAX, Association, Context, Peer, PeerLost, PeerRefused
from cli.files import Sendable

_PAUSE_MAX_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file: the status of its response, or the problem that kept it from getting one."""

    file: Sendable
    status: int | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Success or a warning (PS3.7 C.1, C.2): the peer has it."""
        return self.status is not None and (self.status == 0 or self.status == 0x0001 or 0xB000 <= self.status < 0xC000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of all files."""

    outcomes: Sequence[Outcome]
    seconds: float

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.ok]

    @property
    def sent_bytes(self) -> int:
        return sum(outcome.file.size_bytes for outcome in self.outcomes if outcome.ok)

    def by_status(self) -> list[tuple[int, int]]:
        """(status, count), most frequent first."""
        return Counter(outcome.status for outcome in self.outcomes if outcome.status is not None).most_common()


@dataclass(frozen=True, slots=True)
class _Job:
    file: Sendable
    attempts: int = 0


@dataclass(slots=True)
class _Group:
    """Files whose presentation contexts fit one association."""

    contexts: list[Context]
    jobs: deque[_Job] = field(default_factory=deque)
    given_up: str = ""


class Sender:
    """Sends files to one peer; `associations` threads share the work. A file that got no answer is tried again."""

    def __init__(
        self,
        peer: Peer,
        *,
        associations: int = 1,
        retries: int = 2,
        timeout_s: float = 60.0,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._peer = peer
        self._associations = associations
        self._retries = retries
        self._timeout_s = timeout_s
        self._on_outcome = on_outcome
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._outcomes: list[Outcome] = []

    def send(self, files: Sequence[Sendable]) -> Summary:
        """Send all of `files`; blocks until each has an outcome. KeyboardInterrupt ends it early."""
        started_s = time.monotonic()
        for group in _groups(files):
            count = min(self._associations, len(group.jobs))
            threads = [
                threading.Thread(target=self._work, args=(group,), name=f"association-{i}", daemon=True)
                for i in range(count)
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except KeyboardInterrupt:
                self._stop.set()
                raise
        return Summary(outcomes=tuple(self._outcomes), seconds=time.monotonic() - started_s)

    def _work(self, group: _Group) -> None:
        association: Association | None = None
        while not self._stop.is_set() and (job := self._next(group)) is not None:
            association = association or self._open(group)
            if association is None:
                self._done(Outcome(file=job.file, problem=group.given_up or "interrupted"))
                continue
            association = self._store(association, group, job)
        if association is not None:
            association.release()

    def _store(self, association: Association, group: _Group, job: _Job) -> Association | None:
        """Send one file; gives the association if it still stands."""
        file = job.file
        if _context(file) not in association.accepted:
            self._done(Outcome(file=file, problem="the peer accepts no presentation context for it"))
            return association
        try:
            self._done(Outcome(file=file, status=_store_file(association, file)))
            return association
        except PeerLost as error:
            association.abort()
            if job.attempts < self._retries:
                self._stop.wait(_pause_s(job.attempts))
                with self._lock:
                    group.jobs.appendleft(replace(job, attempts=job.attempts + 1))
            else:
                self._done(Outcome(file=file, problem=str(error)))
        except OSError as error:
            self._done(Outcome(file=file, problem=(error.strerror or type(error).__name__).lower()))
            return association
        return None

    def _open(self, group: _Group) -> Association | None:
        """An association for the group, tried again while the peer is away; None once that was given up."""
        for attempt in range(self._retries + 1):
            if group.given_up or self._stop.is_set():
                return None
            try:
                return Association(self._peer, group.contexts, timeout_s=self._timeout_s)
            except PeerRefused as error:
                group.given_up = str(error)
            except PeerLost as error:
                if attempt == self._retries:
                    group.given_up = str(error)
                else:
                    self._stop.wait(_pause_s(attempt))
        return None

    def _next(self, group: _Group) -> _Job | None:
        with self._lock:
            return group.jobs.popleft() if group.jobs else None

    def _done(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)
            self._on_outcome(outcome)


def meaning(status: int) -> str:
    """A C-STORE status in words (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    if status in _MEANINGS:
        return _MEANINGS[status]
    ranges = {0xA7: "refused: out of resources", 0xA9: "data set does not match its SOP class"}
    if status >> 8 in ranges:
        return ranges[status >> 8]
    if status >> 12 == 0xC:
        return "cannot understand"
    return "warning" if status >> 12 == 0xB else "failure"


_MEANINGS = {
    0x0000: "success",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0211: "unrecognized operation",
    0xB000: "warning: coercion of data elements",
    0xB006: "warning: elements discarded",
    0xB007: "warning: data set does not match SOP class",
}


def _store_file(association: Association, file: Sendable) -> int:
    with file.path.open("rb") as opened:
        # Not closed by hand: a broken association's traceback still holds slices of it for a moment.
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return association.store(_context(file), file.sop_instance_uid, memoryview(content)[file.dataset_offset :])


def _groups(files: Sequence[Sendable]) -> list[_Group]:
    contexts = sorted({_context(file) for file in files})
    groups = [_Group(contexts[start : start + CONTEXTS_MAX]) for start in range(0, len(contexts), CONTEXTS_MAX)]
    number = {context: index // CONTEXTS_MAX for index, context in enumerate(contexts)}
    for file in files:
        groups[number[_context(file)]].jobs.append(_Job(file))
    return groups


def _context(file: Sendable) -> Context:
    return file.sop_class_uid, file.transfer_syntax


def _pause_s(attempt: int) -> float:
    return float(min(0.25 * 2**attempt, _PAUSE_MAX_S))
