"""Which lane a study waits in: decided by its first instance from who sends it, and kept for the rest of it.

All processes of one data folder agree, and after a restart with what was decided before (`ingest.lane_store`). Two
edges do not: an edge asks nobody else before it answers a modality, and never opens the catalog.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from ingest.arrival import Sender
from ingest.lane_store import LaneStore
from runtime.errors import Misconfigured
from schemas.message import Lane

#: Studies remembered by a process; the one not seen for the longest time goes first.
STUDIES_MAX: Final = 10_000
_CALLED: Final = "called:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRule:
    """Senders and the lane they get. In the pattern ``*`` and ``?`` stand for any characters, as in file names."""

    pattern: str
    lane: Lane
    #: Whether the pattern is of the called AE title, rather than the calling one.
    called: bool = False

    def matches(self, sender: Sender) -> bool:
        """Whether `sender` is meant."""
        return fnmatchcase(sender.called_ae if self.called else sender.calling_ae, self.pattern)


def parse_rules(text: str) -> tuple[LaneRule, ...]:
    """Rules as the setting has them: ``CT_ER*=urgent,called:EMERGENCY=urgent,OLD_PACS=bulk``.

    Raises:
        Misconfigured: says which rule is wrong.
    """
    return tuple(_parse(rule.strip()) for rule in text.split(",") if rule.strip())


def _parse(rule: str) -> LaneRule:
    pattern, _, lane = (part.strip() for part in rule.rpartition("="))
    called = pattern.startswith(_CALLED)
    pattern = pattern.removeprefix(_CALLED).strip()
    if not pattern or lane not in list(Lane):
        lanes = ", ".join(Lane)
        raise Misconfigured(f"SANSFILM_LANE_RULES: {rule!r} is no rule; write PATTERN=LANE with a lane of {lanes}")
    return LaneRule(pattern=pattern, lane=Lane(lane), called=called)


class Lanes:
    """The lanes of studies, remembered by this process and, in `store`, by all of its data folder. Thread-safe."""

    def __init__(
        self,
        rules: Sequence[LaneRule],
        default: Lane,
        *,
        store: LaneStore | None = None,
        studies_max: int = STUDIES_MAX,
    ) -> None:
        """`store` stays its owner's. It is asked about studies that this process does not remember; never without
        rules."""
        self._rules = rules
        self._default = default
        self._store = store
        self._studies_max = studies_max
        self._lock = threading.Lock()
        self._decided: OrderedDict[tuple[str, str], Lane] = OrderedDict()

    def of(self, sender: Sender, tenant: str, study_uid: str) -> Lane:
        """The lane of an instance: that of its study; for a study not seen lately, the first rule that fits `sender`.

        An instance without Study Instance UID is judged alone.
        """
        if not self._rules:
            return self._default
        if not study_uid:
            return self._by_rule(sender)
        study = (tenant, study_uid)
        return self._remembered(study) or self._remember(study, self._shared(study, self._by_rule(sender)))

    def _remembered(self, study: tuple[str, str]) -> Lane | None:
        with self._lock:
            lane = self._decided.get(study)
            if lane is not None:
                self._decided.move_to_end(study)
            return lane

    def _remember(self, study: tuple[str, str], lane: Lane) -> Lane:
        """The first of this process to say so decides."""
        with self._lock:
            lane = self._decided.setdefault(study, lane)
            if len(self._decided) > self._studies_max:
                self._decided.popitem(last=False)
            return lane

    def _shared(self, study: tuple[str, str], lane: Lane) -> Lane:
        """Not under the lock: the store may block, and instances of other studies must not."""
        return self._store.decide(*study, lane) if self._store is not None else lane

    def _by_rule(self, sender: Sender) -> Lane:
        return next((rule.lane for rule in self._rules if rule.matches(sender)), self._default)
