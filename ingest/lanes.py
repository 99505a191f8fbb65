"""Which lane a study waits in: decided by its first instance from who sends it, and kept for the rest of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from ingest.arrival import Sender
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
    """The lanes of one process's studies. Thread-safe."""

    def __init__(self, rules: Sequence[LaneRule], default: Lane, *, studies_max: int = STUDIES_MAX) -> None:
        self._rules = rules
        self._default = default
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
        with self._lock:
            lane = self._decided.get(study) or self._by_rule(sender)
            self._decided[study] = lane
            self._decided.move_to_end(study)
            if len(self._decided) > self._studies_max:
                self._decided.popitem(last=False)
        return lane

    def _by_rule(self, sender: Sender) -> Lane:
        return next((rule.lane for rule in self._rules if rule.matches(sender)), self._default)
