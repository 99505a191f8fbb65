"""Lanes by rule, kept for a study."""

from __future__ import annotations

import pytest

from ingest.arrival import Sender
from ingest.lanes import Lanes, parse_rules
from runtime.errors import Misconfigured
from schemas.message import Lane

RULES = parse_rules("CT_ER*=urgent, called:EMERGENCY=urgent ,OLD_PACS=bulk,ODD=NAME=bulk,")


def sender(calling_ae: str = "MR1", called_ae: str = "SANSFILM") -> Sender:
    return Sender(route="cstore", association_id="a", calling_ae=calling_ae, called_ae=called_ae)


@pytest.mark.parametrize(
    ("who", "lane"),
    [
        (sender(), Lane.ROUTINE),
        (sender("CT_ER2"), Lane.URGENT),
        (sender("ct_er2"), Lane.ROUTINE),
        (sender(called_ae="EMERGENCY"), Lane.URGENT),
        (sender("OLD_PACS"), Lane.BULK),
        (sender("OLD_PACS", "EMERGENCY"), Lane.URGENT),
        (sender("ODD=NAME"), Lane.BULK),
    ],
)
def test_the_first_rule_that_fits_decides(who: Sender, lane: Lane) -> None:
    assert Lanes(RULES, Lane.ROUTINE).of(who, "default", "1.2") == lane


def test_a_study_keeps_its_lane_whoever_sends_the_rest() -> None:
    lanes = Lanes(RULES, Lane.ROUTINE)
    assert lanes.of(sender("CT_ER1"), "default", "1.2") == Lane.URGENT
    assert lanes.of(sender("OLD_PACS"), "default", "1.2") == Lane.URGENT
    assert lanes.of(sender("OLD_PACS"), "north", "1.2") == Lane.BULK
    assert lanes.of(sender("OLD_PACS"), "default", "") == Lane.BULK
    assert lanes.of(sender("CT_ER1"), "default", "") == Lane.URGENT


def test_the_memory_of_studies_is_bounded() -> None:
    lanes = Lanes(RULES, Lane.ROUTINE, studies_max=2)
    for study in ("1.1", "1.2", "1.1", "1.3"):
        lanes.of(sender("CT_ER1"), "default", study)
    assert lanes.of(sender("OLD_PACS"), "default", "1.1") == Lane.URGENT
    assert lanes.of(sender("OLD_PACS"), "default", "1.2") == Lane.BULK


@pytest.mark.parametrize("rules", ["CT", "=urgent", "CT=fast", "called:=bulk", "CT=urgent,MR="])
def test_a_rule_that_is_none_is_refused_in_a_sentence(rules: str) -> None:
    with pytest.raises(Misconfigured, match="is no rule"):
        parse_rules(rules)
