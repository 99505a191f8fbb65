"""A stretch of the log into an archive of its own, beside the live one: what this program and policy make of it.

The shadow is a folder with a store and a catalog, written by the worker's own steps. The live archive is only read: the
bytes of claim checks, and what it holds of each message, which is compared with what became of it in the shadow.

Which of two contents under one UID came first is not compared: the shadow knows the stretch alone.

It is of one policy and one version of the product, as its mark says: what another one would make of an instance that is
there already is never looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import SecretStr

from archive.catalog import CatalogReader, Scope
from archive.decided import QuarantineState
from archive.filing import member_of
from archive.original import OriginalDamaged, original_file
from archive.segment_store import AdoptedMember, Buffer, SegmentStore
from broker.log import Taken
from runtime.errors import Misconfigured, OutOfSpace
from runtime.settings import WorkerSettings
from schemas.message import MessageAttributes
from schemas.reasons import QuarantineReason
from schemas.record import InstanceRecord, QuarantineRecord
from segments.tar import SegmentDamaged
from workers.claims import Claims, claim_of
from workers.patience import Patience
from workers.pipeline import is_decision
from workers.preparation import AlreadyHeld, Judged, KnownVersions, Member, judge, positioned, quarantine
from workers.receipts import Versions, brought_one, receipts_of
from workers.replay import (
    BYTES_GONE,
    Outcome,
    Replayed,
    claim_gone,
    decision_left,
    entry_of,
    file_members,
    in_words,
    is_any,
)
from workers.rooms import Rooms

#: Names a folder as a shadow: nothing else is ever written into a folder that holds something.
MARK: Final = "SHADOW.txt"
_MARK_TEXT: Final = "A shadow archive, made by sansfilm replay. Nothing refers to it: it may be removed.\n"
_PRIVATE: Final = 0o700


def shadow_settings(
    live: WorkerSettings, folder: Path, *, version: str, transcode: Literal["keep", "htj2k"] | None = None
) -> WorkerSettings:
    """The settings of a shadow in `folder`, which is made, or used again if it is one already,
    of the same policy and `version` of the product.

    Raises:
        Misconfigured: it is the live archive's folder, holds something else, or is of another policy or version.
    """
    policy = transcode or live.transcode
    try:
        at, home = folder.resolve(), live.data_dir.resolve()
        if at == home or home.is_relative_to(at) or at.is_relative_to(live.archive_dir.resolve()):
            raise Misconfigured(f"{folder} is the live archive's: name a folder of its own for the shadow")
        at.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        _marked(at, folder, f"Policy: {policy}\nVersion: {version}\n")
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be used: {error.strerror}") from error
    own = {"data_dir": at, "store_url": "", "catalog_url": SecretStr(""), "transcode": policy}
    return live.model_copy(update=own)


def _marked(at: Path, folder: Path, made_by: str) -> None:
    """Mark an empty folder, or see that it is marked as ours; either way for nobody else, as patients' names are."""
    mark = at / MARK
    if mark.exists():
        if (found := mark.read_text().removeprefix(_MARK_TEXT)) != made_by:
            raise Misconfigured(
                f"the shadow in {folder} was made otherwise ({_in_line(found)}), and what is in it is not made again: "
                f"use another folder for {_in_line(made_by)}"
            )
    elif any(at.iterdir()):
        raise Misconfigured(f"{folder} holds something and is no shadow: name an empty folder, or a new one")
    if at.stat().st_mode & 0o077:
        at.chmod(_PRIVATE)
    if not mark.exists():
        mark.write_text(_MARK_TEXT + made_by)


def _in_line(made_by: str) -> str:
    return ", ".join(made_by.splitlines()) or "by another version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The live archive, to be read."""

    store: SegmentStore
    reader: CatalogReader
    claims: Claims


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A message as this program judges it, beside what the live archive holds of it. None: its bytes are gone."""

    taken: Taken
    judged: Judged | None
    uid: str
    versions: Versions
    entry: Mapping[str, Any] | None
    there_already: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReplay:
    """Replays into the shadow of these settings, which `rooms` opened, and compares."""

    settings: WorkerSettings
    rooms: Rooms
    live: Live
    threads: Executor
    #: Nobody else makes room where a shadow lies.
    patience: Patience = field(default_factory=partial(Patience, waits_for_room=False))

    def run(self, taken: Sequence[Taken]) -> Sequence[Replayed]:
        """What each message of one batch came to, decisions first; everything is committed in the shadow.

        Raises:
            SansfilmError: what does not pass; run it again.
            Stopped: the run is to end.
        """
        lasting = self.patience.lasting
        decisions = [decision_left(one) for one in taken if is_decision(one)]
        instances = [one for one in taken if not is_decision(one)]
        known = lasting("look", lambda: self.rooms.judging.hint(instances))
        judged = list(self.threads.map(lambda one: lasting("judge", lambda: self._judge(one, known)), instances))
        members = [one.judged for one in judged if one.judged is not None and not isinstance(one.judged, AlreadyHeld)]
        if members:
            lasting("put", self._require_room)
        file_members(members, self.rooms, self.patience)
        return [*decisions, *self.threads.map(lambda one: lasting("compare", lambda: self._compare(one)), judged)]

    def _require_room(self) -> None:
        """A shadow may lie on the disk that an edge receives on, or a log is written to."""
        reserve_bytes = self.settings.disk_reserve_bytes
        if shutil.disk_usage(self.settings.data_dir).free < reserve_bytes:
            needed = f"SANSFILM_DISK_RESERVE_BYTES ({reserve_bytes:,} bytes)"
            raise OutOfSpace(f"the disk of the shadow has less than {needed} free")

    def _judge(self, taken: Taken, known: KnownVersions) -> _Judged:
        attributes = taken.message.attributes
        uid = attributes.sop_instance_uid
        versions = _versions(self.live.reader, attributes, uid)
        is_known = brought_one(attributes, [version for version, _ in versions])
        entry = None if is_known else entry_of(self.live.reader, attributes)
        judged = self._judged(taken, known, versions, entry)
        if judged is not None:
            judged = positioned(judged, taken.position)
        if isinstance(record := getattr(judged, "record", None), InstanceRecord):
            uid = record.instance.sop_instance_uid  # what the data set itself names decides
            versions = versions if uid == attributes.sop_instance_uid else _versions(self.live.reader, attributes, uid)
        there = brought_one(attributes, known.get((attributes.tenant, attributes.sop_instance_uid), ()))
        return _Judged(taken=taken, judged=judged, uid=uid, versions=versions, entry=entry, there_already=there)

    def _judged(
        self, taken: Taken, known: KnownVersions, versions: Versions, entry: Mapping[str, Any] | None
    ) -> Judged | None:
        attributes = taken.message.attributes
        file, is_original = self._file(taken, versions)
        if file is None:
            return None
        claim = None if is_original else claim_of(attributes)
        if entry is not None and entry["reason"] == QuarantineReason.KILLS_WORKER:
            detail = "it killed its worker in the live archive, and was not looked into"
            return quarantine(attributes, file, QuarantineReason.KILLS_WORKER, detail)
        judged = judge(attributes, file, known, self.rooms.judging.policy, claim)
        # The shadow refers to nothing of the live archive.
        return member_of(judged.record, [file]) if isinstance(judged, AdoptedMember) else judged

    def _file(self, taken: Taken, versions: Versions) -> tuple[Buffer | None, bool]:
        """The file of a message, and whether it is an original: what its claim check held and the live archive has
        rewritten, given back from there, and proven. None: neither is there.
        """
        try:
            return self.live.claims.file(taken.message), False
        except (FileNotFoundError, SegmentDamaged):
            for version, record in receipts_of(taken.message.attributes, versions):
                with suppress(FileNotFoundError, SegmentDamaged, OriginalDamaged):
                    return original_file(self.live.store, record, version.location), True
        return None, True

    def _compare(self, one: _Judged) -> Replayed:
        return replace(self._compared(one), there_already=one.there_already)

    def _compared(self, one: _Judged) -> Replayed:
        judged = one.judged
        if judged is None:
            if receipts_of(one.taken.message.attributes, one.versions):
                return _replayed(one, Outcome.LOST, BYTES_GONE)
            return _replayed(one, Outcome.UNREADABLE, claim_gone(one.versions))
        if not isinstance(judged, AlreadyHeld) and isinstance(judged.record, QuarantineRecord):
            return _beside_quarantined(one, judged.record)
        if one.entry is not None and one.entry["state"] != QuarantineState.REPLAYED:
            return _replayed(
                one, Outcome.QUARANTINED, f"{in_words(one.entry)} in the live archive, filed in the shadow"
            )
        if not one.versions:
            return _replayed(one, Outcome.NEW, "only in the shadow: missing in the live archive")
        return self._beside_versions(one, judged)

    def _beside_versions(self, one: _Judged, judged: Member | AlreadyHeld) -> Replayed:
        held = _versions(self.rooms.reader, one.taken.message.attributes, one.uid)
        digest = _digest(judged, held)
        mine = next((found for found in held if found[0].wire_sha256 == digest), None)
        live = next((record for version, record in one.versions if version.wire_sha256 == digest), None)
        if live is None:
            versions = [version for version, _ in one.versions]
            if is_any(partial(self._read, one), versions, self.live.store, self.rooms.decode):
                return _replayed(one, Outcome.SAME, "held in another encoding")
            return _replayed(one, Outcome.CONFLICT, "the live archive holds other content under its UID")
        if mine is None:
            return _replayed(one, Outcome.CONFLICT, "a version of its own in the live archive, none in the shadow")
        if live.pixel_sha256 != mine[1].pixel_sha256:
            return _replayed(one, Outcome.CONFLICT, "the digests of its pixels differ")
        otherwise = live.stored_transfer_syntax != mine[1].stored_transfer_syntax
        return Replayed(taken=one.taken, outcome=Outcome.SAME, stored_otherwise=otherwise)

    def _read(self, one: _Judged) -> Buffer:
        """The message's own file; the shadow may hold it in another encoding, that of a message before it."""
        file, _ = self._file(one.taken, one.versions)
        if file is None:
            raise FileNotFoundError(one.taken.message.attributes.data_ref)
        return file


def _versions(reader: CatalogReader, attributes: MessageAttributes, uid: str) -> Versions:
    return reader.versions(Scope(principal="replay", tenant=attributes.tenant), uid)


def _digest(judged: Member | AlreadyHeld, held: Versions) -> str:
    """The digest of what was judged; what the shadow held before is found by its place."""
    if isinstance(judged, AlreadyHeld):
        return next(version.wire_sha256 for version, _ in held if version.location == judged.location)
    return judged.record.wire_sha256


def _beside_quarantined(one: _Judged, record: QuarantineRecord) -> Replayed:
    if one.entry is None:
        live = "filed" if one.versions else "missing"
        return _replayed(
            one, Outcome.QUARANTINED, f"{live} in the live archive, quarantined as {record.reason} in the shadow"
        )
    if one.entry["reason"] == record.reason:
        return _replayed(one, Outcome.QUARANTINED_ALREADY, in_words(one.entry))
    why = f"{in_words(one.entry)} in the live archive, as {record.reason} in the shadow"
    return _replayed(one, Outcome.QUARANTINED, why)


def _replayed(one: _Judged, outcome: Outcome, why: str) -> Replayed:
    return Replayed(taken=one.taken, outcome=outcome, why=why)
