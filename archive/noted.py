"""The whole journal, read at once, and what it says of segments and instances: what a replay must know beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from archive.ahead import ahead
from archive.journal import (
    CompactedNoted,
    CondemnedNoted,
    ConflictNoted,
    DecisionNoted,
    Entry,
    SameNoted,
    decode_entry,
)
from archive.layout import JOURNAL, id_of
from archive.segment_store import SegmentStore
from schemas.decisions import UseVersion
from schemas.record import InstanceRecord
from segments.tar import SegmentDamaged

#: Tenant and SOP Instance UID.
Instance = tuple[str, str]
Damaged = Callable[[str, str], None]


@dataclass(slots=True, kw_only=True)
class Noted:
    """Entries by key in the order of their ids, and views of them. About 1 kB an entry."""

    entries: dict[str, Entry] = field(default_factory=dict)
    #: Digests that were kept as a further version, by instance.
    conflicts: set[tuple[str, str, str]] = field(default_factory=set)
    #: Messages whose receipts under a UID are none: other receipts of the same content stand.
    same: set[tuple[str, str, str]] = field(default_factory=set)
    condemned: set[str] = field(default_factory=set)
    #: Compacted segments that are there, by the id of a segment whose place they take; the last one counts.
    moved: dict[str, Sequence[str]] = field(default_factory=dict)
    #: Such compacted segments, and the segments whose content is in one of them, by key.
    compacted: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)

    def of_decisions(self) -> Iterator[DecisionNoted]:
        """Decisions, oldest first."""
        return (entry for entry in self.entries.values() if isinstance(entry, DecisionNoted))

    def of_compactions(self) -> Iterator[CompactedNoted]:
        """Compactions, oldest first."""
        return (entry for entry in self.entries.values() if isinstance(entry, CompactedNoted))

    def is_conflict(self, record: InstanceRecord) -> bool:
        """Whether this content was kept beside the first one."""
        at = (record.attributes.tenant, record.instance.sop_instance_uid, record.wire_sha256)
        return at in self.conflicts

    def is_same(self, record: InstanceRecord) -> bool:
        """Whether another receipt stands for this one."""
        return (record.attributes.tenant, record.instance.sop_instance_uid, record.attributes.id) in self.same

    def current(self) -> Mapping[Instance, str]:
        """The digest that an entry named last as the current version, by instance."""
        return dict(named for entry in self.entries.values() if (named := current_of(entry)))


def read_journal(store: SegmentStore, *, damaged: Damaged) -> Noted:
    """Every entry of the store; `damaged` is told the key of one that cannot be read, and why."""
    noted = Noted()
    read_on(noted, store, damaged=damaged)
    return noted


def read_on(noted: Noted, store: SegmentStore, *, damaged: Damaged) -> Sequence[Entry]:
    """Add the entries that are not in `noted` yet; gives those."""
    found: dict[str, Entry] = {}
    unknown = (key for key in store.keys(f"{JOURNAL}/") if key not in noted.entries)
    for key, entry in ahead(partial(_read, store), unknown):
        if isinstance(entry, Exception):
            damaged(key, str(entry))
            continue
        found[key] = entry
        _note(noted, entry, store)
    merged = {**noted.entries, **found}
    noted.entries = dict(sorted(merged.items(), key=lambda item: id_of(item[0])))
    return list(found.values())


def _read(store: SegmentStore, key: str) -> Entry | Exception:
    try:
        return decode_entry(store.journal_entry(key))
    except (SegmentDamaged, ValueError) as error:
        return error


def current_of(entry: Entry) -> tuple[Instance, str] | None:
    """The instance whose current version an entry names, and that version's digest. None: it names none."""
    if isinstance(entry, ConflictNoted):
        return (entry.tenant, entry.sop_instance_uid), entry.current_wire_sha256
    if isinstance(entry, DecisionNoted) and isinstance(entry.decision, UseVersion):
        made = entry.decision
        return (made.tenant, made.sop_instance_uid), made.wire_sha256
    return None


def _note(noted: Noted, entry: Entry, store: SegmentStore) -> None:
    if isinstance(entry, ConflictNoted):
        noted.conflicts.add((entry.tenant, entry.sop_instance_uid, entry.wire_sha256))
    elif isinstance(entry, SameNoted):
        noted.same.update((entry.tenant, uid, message_id) for uid, message_id in entry.receipts)
    elif isinstance(entry, CondemnedNoted):
        noted.condemned.update(entry.keys)
    elif isinstance(entry, CompactedNoted) and all(_is_there(store, key) for key in entry.keys):
        noted.moved.update(dict.fromkeys([*entry.origins, *map(id_of, entry.replaces)], entry.keys))
        noted.compacted.update(entry.keys)
        noted.replaced.update(entry.replaces)


def _is_there(store: SegmentStore, key: str) -> bool:
    try:
        store.size_bytes(key)
    except FileNotFoundError:
        return False
    return True
