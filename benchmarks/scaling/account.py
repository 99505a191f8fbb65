"""What was acknowledged, held against what the catalog has; and how evenly it lay in the partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from archive.catalog import Scope
from archive.opening import open_catalog_reader
from region.cluster import Cluster

_SCOPE: Final = Scope(principal="benchmark", tenant="default")
_DRAWS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """One committed version, as the catalog tells of it."""

    sop_instance_uid: str
    study_instance_uid: str
    partition: str
    committed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whether everything acknowledged is there once."""

    acknowledged: int
    #: Versions in the catalog.
    committed: int
    missing: int
    doubled: int
    #: Committed and never acknowledged; no more than got no answer because their association was lost.
    unacknowledged: int
    unanswered: int
    #: Whether `sansfilm archive verify` found every digest as it must be.
    verified: bool

    @property
    def is_whole(self) -> bool:
        return self.verified and not (self.missing or self.doubled) and self.unacknowledged <= self.unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How evenly something lies: the fullest place over the mean."""

    places: int
    instances: int
    studies: int
    fullest_over_mean: float
    #: The same if each study fell anywhere with the same chance: median and 95th percentile.
    by_chance: float
    by_chance_p95: float


def filed(cluster: Cluster, studies: Iterable[str]) -> tuple[list[Filed], int]:
    """Every version of these studies, and how many versions the catalog counts in all."""
    with closing(open_catalog_reader(cluster.settings())) as reader:
        rows = [row for study in sorted(set(studies)) for row in reader.trace(_SCOPE, study)]
        counted = reader.counters(_SCOPE.tenant)["versions"]
    return [
        Filed(
            sop_instance_uid=row["sop_instance_uid"],
            study_instance_uid=row["study_instance_uid"],
            partition=row["log_position"].partition("@")[0],
            committed_s=datetime.fromisoformat(row["committed_at"]).timestamp(),
        )
        for row in rows
    ], counted


def balance(
    acknowledged: Collection[str], committed: Mapping[str, int], *, counted: int, unanswered: int, verified: bool
) -> Account:
    """`committed` are versions by SOP Instance UID, `counted` the versions that the catalog's own counter tells."""
    answered = sum(committed.get(uid, 0) for uid in set(acknowledged))
    return Account(
        acknowledged=len(acknowledged),
        committed=counted,
        missing=len(set(acknowledged) - committed.keys()),
        doubled=sum(count - 1 for count in committed.values()),
        unacknowledged=counted - answered,
        unanswered=unanswered,
        verified=verified,
    )


def spread(rows: Sequence[Filed], *, partitions: int) -> Spread:
    """Of instances over partitions, beside what chance makes of as many studies."""
    held = Counter(row.partition for row in rows)
    studies = Counter(row.study_instance_uid for row in rows)
    draws = np.random.default_rng(1).integers(partitions, size=(_DRAWS, len(studies)))
    fullest = [np.bincount(draw, weights=list(studies.values())).max() for draw in draws]
    mean = len(rows) / partitions
    return Spread(
        places=partitions,
        instances=len(rows),
        studies=len(studies),
        fullest_over_mean=max(held.values()) / mean,
        by_chance=float(np.median(fullest)) / mean,
        by_chance_p95=float(np.quantile(fullest, 0.95)) / mean,
    )
