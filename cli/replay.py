"""`sansfilm replay`: a stretch of the log into the live archive, or a shadow one, and what differs."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from broker.log import Taken
from broker.opening import kafka_configuration
from cli.output import out, print_json, table
from cli.place import Place
from cli.send import progress_bar
from cli.version import VERSION
from runtime.errors import Misconfigured
from runtime.settings import WorkerSettings
from schemas.message import Lane
from workers.batches import BatchLimits
from workers.claims import Claims
from workers.patience import Patience
from workers.replay import LiveReplay, Outcome, Replayed, Selection, batches_of
from workers.rooms import finish_last_run, open_rooms
from workers.shadow import Live, ShadowReplay, shadow_settings

if TYPE_CHECKING:  # the client takes time to load
    from broker.kafka.stretch import Mark, Span, StretchReader, Torn

_NO_LOG: Final = (
    "there is no log to replay: the files of one machine's log are deleted as soon as they are committed. What is in "
    "them still, the worker commits; what is archived, sansfilm archive verify reads again. For the log of a region "
    "set SANSFILM_KAFKA_BOOTSTRAP"
)
_OFFSET = re.compile(r"(?:(?P<topic>[A-Za-z0-9._-]+)/)?(?P<partition>\d{1,6})@(?P<offset>\d{1,18})")
_LABELS: Final = {
    Outcome.SAME: "same",
    Outcome.NEW: "new: was missing",
    Outcome.CONFLICT: "other content",
    Outcome.LOST: "bytes were lost",
    Outcome.QUARANTINED: "quarantined",
    Outcome.QUARANTINED_ALREADY: "quarantined already",
    Outcome.UNREADABLE: "not readable",
    Outcome.DECISION: "decision, not repeated",
}
_TORN: Final = "none of ours, or damaged in the log: its workers have set it aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a replay is asked for."""

    since: str
    until: str | None = None
    topic: str | None = None
    selection: Selection = field(default_factory=Selection)
    dry_run: bool = False
    shadow: Path | None = None
    transcode: Literal["keep", "htj2k"] | None = None
    partial_ok: bool = False
    limit: int = 50


class _Replay(Protocol):
    def run(self, taken: Sequence[Taken]) -> Sequence[Replayed]: ...


@dataclass(slots=True, kw_only=True)
class _Account:
    """What the messages came to."""

    limit: int
    spans: Sequence[Span]
    counts: Counter[tuple[Lane, Outcome]] = field(default_factory=Counter)
    #: Up to `limit` of those that differ, and how many there are in all.
    differ: list[dict[str, object]] = field(default_factory=list)
    differing: int = 0
    read: int = 0
    stored_otherwise: int = 0
    there_already: int = 0

    def add(self, one: Replayed) -> None:
        given, at = one.taken.message.attributes, one.taken.position
        self.stored_otherwise += one.stored_otherwise
        self.there_already += one.there_already
        self._add(given.lane, one.outcome, at.stream, at.offset, one.why, given.sop_instance_uid, given.id)

    def add_torn(self, lane: Lane, one: Torn) -> None:
        self.read += 1
        self._add(lane, Outcome.UNREADABLE, one.stream, one.offset, _TORN, "", "")

    def _add(self, lane: Lane, outcome: Outcome, stream: str, offset: int, why: str, uid: str, message_id: str) -> None:
        self.counts[lane, outcome] += 1
        if outcome.differs:
            self.differing += 1
            if len(self.differ) < self.limit:
                place = {"lane": lane.value, "position": f"{stream}@{offset}"}
                said = {"sop_instance_uid": uid, "message_id": message_id, "outcome": outcome.value, "why": why}
                self.differ.append({**place, **said})

    @property
    def lanes(self) -> Sequence[Lane]:
        """Those that are replayed, the urgent one first."""
        return [lane for lane in Lane if any(span.lane is lane for span in self.spans)]

    @property
    def deleted(self) -> int:
        """Messages of the stretch that are no longer in the log, as far as that is known."""
        return sum(span.deleted for span in self.spans)

    @property
    def may_lack(self) -> Sequence[str]:
        """Partitions of which it is not known."""
        return [span.stream for span in self.spans if span.may_lack]

    @property
    def waiting(self) -> int:
        """Messages of the stretch that the workers have not committed yet."""
        return sum(span.waiting for span in self.spans)

    @property
    def replayed(self) -> int:
        """Messages that were selected."""
        return sum(self.counts.values())

    @property
    def in_quarantine(self) -> int:
        """Those that are in quarantine, and were before."""
        return sum(self.counts[lane, Outcome.QUARANTINED_ALREADY] for lane in self.lanes)

    @property
    def is_whole(self) -> bool:
        """Whether all of the stretch was there to be read."""
        return not self.deleted and not self.may_lack


def run_replay(settings: WorkerSettings, asked: Asked, *, as_json: bool) -> int:
    """Replay, print the diff; gives 1 if something differs, if part of the stretch is gone and that is not allowed, or
    if no message was selected.

    Raises:
        Misconfigured: it cannot be done as asked; says what to do.
        Retryable: Kafka does not answer; run it again.
    """
    if not settings.kafka_bootstrap:
        raise Misconfigured(_NO_LOG)
    if asked.shadow is None and asked.transcode is not None:
        raise Misconfigured("--transcode is a shadow's: the live archive's policy is SANSFILM_TRANSCODE of its workers")
    if asked.shadow is not None and asked.dry_run:
        raise Misconfigured("a shadow is there to be written: leave --dry-run or --shadow out")
    spans = _spans(settings, asked)
    account = _Account(limit=asked.limit, spans=spans)
    began_s = time.monotonic()
    with _opened(settings, asked) as replay, _progress(account) as advance:
        run = _Run(settings=settings, selection=asked.selection, replay=replay, account=account, advance=advance)
        for lane in account.lanes:
            run.lane(lane)
    seconds = time.monotonic() - began_s
    if as_json:
        print_json(_as_json(account, asked, seconds))
    else:
        _show(account, asked, seconds)
    passed = account.replayed and not account.differing and (account.is_whole or asked.partial_ok)
    return 0 if passed else 1


# ---- which stretch ----------------------------------------------------------------------------------------------


def parse_mark(text: str, option: str) -> tuple[Mark, str]:
    """An end of the stretch, and the topic that it names; empty if it names none.

    Raises:
        Misconfigured: it is neither a time nor an offset.
    """
    text = text.strip()
    if re.fullmatch(r"\d{1,18}", text):
        return int(text), ""
    if "@" in text:
        found = [_OFFSET.fullmatch(part.strip()) for part in text.split(",")]
        given = [(one["topic"] or "", int(one["partition"]), int(one["offset"])) for one in found if one]
        topics = {topic for topic, _, _ in given}
        if len(given) == len(found) and len(topics) == 1:
            return {partition: offset for _, partition, offset in given}, topics.pop()
    else:
        try:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.astimezone(), ""
        except (ValueError, OverflowError, OSError):
            pass
    raise Misconfigured(
        f"{option} is neither a time (2026-11-24T14:00, this machine's zone unless it says another) nor an offset "
        "(1200, or 3@1200 of partition 3, as sansfilm trace shows it)"
    )


def _spans(settings: WorkerSettings, asked: Asked) -> Sequence[Span]:
    from broker.kafka.stretch import find_spans

    since, of_since = parse_mark(asked.since, "--from")
    until, of_until = parse_mark(asked.until, "--to") if asked.until else (None, "")
    if isinstance(since, datetime) and isinstance(until, datetime) and since >= until:
        raise Misconfigured("--from must be before --to")
    topics = {name for name in (asked.topic, of_since, of_until) if name}
    lanes = {_lane_of(settings, name) for name in topics} or set(Lane)
    if len(lanes) > 1 and (topics or isinstance(since, Mapping) or isinstance(until, Mapping)):
        raise Misconfigured("offsets of partitions are those of one topic: name it with --topic")
    configuration = kafka_configuration(settings)
    return [span for lane in Lane if lane in lanes for span in find_spans(configuration, lane, since, until)]


def _lane_of(settings: WorkerSettings, topic: str) -> Lane:
    name = topic.removeprefix(f"{settings.kafka_topic_prefix}.")
    if name not in list(Lane):
        lanes = ", ".join(Lane)
        raise Misconfigured(f"there is no lane {topic}: name one of {lanes}, or its topic")
    return Lane(name)


# ---- replaying ----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(settings: WorkerSettings, asked: Asked) -> Iterator[_Replay]:
    """What the batches go through; and the access event of what is read."""
    own = settings
    if asked.shadow is not None:
        own = shadow_settings(settings, asked.shadow, version=VERSION, transcode=asked.transcode)
    with ExitStack() as stack:
        place = stack.enter_context(Place(settings))
        place.note("replay", asked.selection.study_uid)
        rooms = open_rooms(own, stack)
        if not asked.dry_run:
            finish_last_run(own, rooms)
        threads = stack.enter_context(ThreadPoolExecutor(settings.worker_threads, "replay"))
        patience = Patience(waits_for_room=asked.shadow is None)
        stack.callback(patience.stop.set)  # before the pool is waited for
        if asked.shadow is None:
            yield LiveReplay(rooms=rooms, threads=threads, files=not asked.dry_run, patience=patience)
            return
        claims = Claims(store=place.store, memory_max_bytes=settings.transcode_max_bytes, spool_dir=own.run_dir)
        live = Live(store=place.store, reader=place.reader, claims=claims)
        yield ShadowReplay(settings=own, rooms=rooms, live=live, threads=threads, patience=patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One lane after the other through `replay`, into the account."""

    settings: WorkerSettings
    selection: Selection
    replay: _Replay
    account: _Account
    advance: Callable[[], None]

    def lane(self, lane: Lane) -> None:
        """Everything of a lane."""
        from broker.kafka.stretch import StretchReader

        spans = [span for span in self.account.spans if span.lane is lane]
        given = self.settings
        limits = BatchLimits(max_messages=given.batch_max_messages, max_bytes=given.batch_max_bytes, wait_s=0.0)
        with closing(StretchReader(kafka_configuration(given), spans)) as reader:
            for taken in batches_of(reader, limits):
                self._batch(taken)
                self._torn(reader, lane)
                self.advance()
            self._torn(reader, lane)

    def _batch(self, taken: Sequence[Taken]) -> None:
        self.account.read += len(taken)
        selected = [one for one in taken if self.selection.includes(one.message.attributes)]
        for one in self.replay.run(selected) if selected else ():
            self.account.add(one)

    def _torn(self, reader: StretchReader, lane: Lane) -> None:
        for one in reader.torn:
            self.account.add_torn(lane, one)
        reader.torn.clear()


@contextmanager
def _progress(account: _Account) -> Iterator[Callable[[], None]]:
    total, began_s = sum(span.messages for span in account.spans), time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("replaying", total=total)

        def advance() -> None:
            rate = account.read / max(time.monotonic() - began_s, 0.001)
            said = f"replaying, {rate:,.0f}/s" + (f", {account.differing:,} differ" if account.differing else "")
            bar.update(task, completed=account.read, description=said)

        yield advance


# ---- saying ---------------------------------------------------------------------------------------------------------


def _show(account: _Account, asked: Asked, seconds: float) -> None:
    rows = []
    for outcome in Outcome:
        counts = [account.counts[lane, outcome] for lane in account.lanes]
        if any(counts) or outcome in (Outcome.SAME, Outcome.NEW):
            rows.append((_LABELS[outcome], *(f"{count:,}" for count in counts), f"{sum(counts):,}"))
    out().print(table("", ("messages", *(lane.value for lane in account.lanes), "all"), rows))
    if account.differ:
        columns = ("instance", "lane", "position", "why")
        names = ("sop_instance_uid", "lane", "position", "why")
        out().print(table("", columns, [[one[name] for name in names] for one in account.differ]))
    if more := account.differing - len(account.differ):
        out().print(f"and {more:,} more (--limit)")
    for line in (*_notes(account), _verdict(account, asked, seconds)):
        out().print(line, markup=False, soft_wrap=True)


def _notes(account: _Account) -> Iterator[str]:
    if account.deleted:
        yield f"{account.deleted:,} messages of the stretch are NOT in the log any more: committed once, and deleted"
    if account.may_lack:
        partitions = ", ".join(account.may_lack)
        yield f"deleted messages may have belonged to the stretch: none older than it is left in {partitions}"
    if account.waiting:
        yield f"{account.waiting:,} messages are not committed by the workers yet, and were left to them"
    if account.there_already:
        yield f"{account.there_already:,} were there already, from a run before"
    if account.stored_otherwise:
        yield f"{account.stored_otherwise:,} are stored in another transfer syntax in the shadow"


def _verdict(account: _Account, asked: Asked, seconds: float) -> str:
    if not account.replayed:
        return "nothing was replayed: no message of the stretch was selected"
    done = f"{account.replayed:,} of {account.read:,} messages replayed in {seconds:.1f} s"
    if asked.shadow is not None:
        said = (
            f"{account.differing:,} differ from the live archive" if account.differing else "equal to the live archive"
        )
        look = (
            f"look into it with SANSFILM_CATALOG_URL= SANSFILM_STORE_URL= sansfilm trace UID --data-dir {asked.shadow}"
        )
        return f"{done} into {asked.shadow}: {said}; {look}"
    if not account.differing:
        what = "everything" if account.is_whole and not account.waiting else "what was replayed"
        but = f" but {account.in_quarantine:,} in quarantine" if account.in_quarantine else ""
        return f"{done}: {what} was archived{but}, and nothing was changed"
    after = "nothing was committed (--dry-run)" if asked.dry_run else "what could be committed is committed"
    return f"{done}: {account.differing:,} were not as they should be; {after}"


def _as_json(account: _Account, asked: Asked, seconds: float) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    for (lane, outcome), count in account.counts.items():
        counts.setdefault(lane.value, {})[outcome.value] = count
    return {
        "clean": account.replayed > 0 and not account.differing and account.is_whole,
        "archive": str(asked.shadow) if asked.shadow else "live",
        "dry_run": asked.dry_run,
        "read": account.read,
        "replayed": account.replayed,
        "outcomes": counts,
        "differing": account.differing,
        "differ": account.differ,
        "deleted": account.deleted,
        "may_lack": list(account.may_lack),
        "waiting": account.waiting,
        "stored_otherwise": account.stored_otherwise,
        "there_already": account.there_already,
        "seconds": round(seconds, 3),
    }
