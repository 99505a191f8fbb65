"""Sends everything, by every route, twice; says what became of each file and what came back."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx

from archive.original import original
from instances.part10 import split
from runtime.errors import Rejected
from tests.corpus.comeback import EQUAL, Comparison
from tests.corpus.offered import Offered, offered
from tests.corpus.routes import ACKNOWLEDGED, ROUTES, Answers, send
from tests.corpus.system import Running, running

COMMITTED, SAME, CONFLICT = "committed", "same", "conflict"
#: How an instance is asked for.
ACCEPTS = {"stored": "application/dicom; transfer-syntax=*", "decoded": "application/dicom"}
_RETRIEVALS_MAX = 2


@dataclass(slots=True)
class Account:
    """What became of everything."""

    #: (route, name of file) → the outcome of its first sending, and of the second by another route.
    outcomes: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    #: (route, name, how it was asked for) → what is not equal to what was sent.
    not_equal: dict[tuple[str, str, str], str] = field(default_factory=dict)
    #: (route, name) whose original was given back with the digest of what was received.
    originals: set[tuple[str, str]] = field(default_factory=set)
    retrievals: int = 0

    def totals(self, route: str, sending: int) -> Counter[str]:
        """How many files came to which kind of outcome."""
        return Counter(both[sending].partition(":")[0] for (by, _), both in self.outcomes.items() if by == route)

    def line(self, route: str, sending: int) -> str:
        """The sum, spelled out."""
        totals = self.totals(route, sending)
        kinds = ("not_sendable", "refused", COMMITTED, SAME, CONFLICT, "quarantined")
        by = route if sending == 0 else f"{route}, again by {ROUTES[route]}"
        return f"{by}: {len(offered())} offered = " + " + ".join(f"{totals[kind]} {kind}" for kind in kinds)


def account_for_everything(folder: Path) -> Account:
    """Run it all in `folder`."""
    account = Account()
    with running(folder / "data") as system:
        first = _sending(system, {route: route for route in ROUTES}, folder, {})
        again = _sending(system, ROUTES, folder, first)
        account.outcomes = {key: (first[key][0], again[key][0]) for key in first}
        committed = [key for key, (outcome, _) in account.outcomes.items() if outcome == COMMITTED]
        anyio.run(_retrieve_all, system, committed, account)
    return account


Known = Mapping[tuple[str, str], tuple[str, int]]
"""(route, name) → outcome, and how many versions and quarantine entries there were under its UID."""


def _sending(system: Running, by: Mapping[str, str], folder: Path, before: Known) -> Known:
    """Send everything of each route's tenants by another route, or the same; wait; look what became of it."""
    rounds: dict[int, list[Offered]] = defaultdict(list)
    for one in offered():
        rounds[one.round_].append(one)
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for route, sender in by.items():
        for number, files in rounds.items():
            answers[route].update(send(sender, system, tenant_of(route, number), files, folder))
    system.wait_drained()
    return {
        (route, one.name): _outcome(system, route, one, answers[route], before.get((route, one.name), ("", 0))[1])
        for route in by
        for one in offered()
    }


def tenant_of(route: str, round_: int) -> str:
    return f"{route}-{round_:02d}"


def _outcome(system: Running, route: str, one: Offered, answers: Answers, count_before: int) -> tuple[str, int]:
    tenant, uid = tenant_of(route, one.round_), one.sop_instance_uid
    versions = len(system.versions(tenant, uid)) if uid else 0
    entries = [entry for entry in system.quarantined(tenant) if entry["attributes"].sop_instance_uid == uid]
    count = versions + len(entries)
    if answers[one.name] != ACKNOWLEDGED:
        return answers[one.name], count
    if count == count_before:
        return (SAME if count else "lost"), count
    if entries:
        return f"quarantined:{entries[-1]['reason']}", count
    return (CONFLICT if count_before else COMMITTED), count


async def _retrieve_all(system: Running, committed: Sequence[tuple[str, str]], account: Account) -> None:
    comparison = Comparison(system.decoder)
    by_name = {one.name: one for one in offered()}
    waiting = list(committed)

    async def work() -> None:
        while waiting:
            route, name = waiting.pop()
            await _retrieve(system, client, route, by_name[name], comparison, account)

    async with system.client() as client, anyio.create_task_group() as group:
        for _ in range(_RETRIEVALS_MAX):
            group.start_soon(work)


async def _retrieve(
    system: Running, client: httpx.AsyncClient, route: str, one: Offered, comparison: Comparison, account: Account
) -> None:
    tenant = tenant_of(route, one.round_)
    (version, record), *_ = system.versions(tenant, one.sop_instance_uid)
    wire = original(system.store, record, version.location)
    if hashlib.sha256(wire).hexdigest() == record.wire_sha256 and (route == "dcmsend" or _is_sent(wire, one)):
        account.originals.add((route, one.name))
    study, series = version.study_instance_uid, record.series.series_instance_uid
    address = f"/t/{tenant}/dicom-web/studies/{study}/series/{series}/instances/{one.sop_instance_uid}"
    for how, accept in ACCEPTS.items():
        answer = await client.get(address, headers={"accept": accept})
        account.retrievals += 1
        verdict = await anyio.to_thread.run_sync(_verdict, one, answer, comparison)
        if verdict != EQUAL:
            account.not_equal[route, one.name, how] = verdict


def _is_sent(wire: bytes, one: Offered) -> bool:
    """Whether `wire` is the file's own data set; C-STORE carries an even number of bytes (PS3.8 E.2, PS3.5 A.5)."""
    dataset = bytes(one.dataset[0])
    return wire == dataset or (len(dataset) % 2 == 1 and wire == dataset + b"\0")


def _verdict(one: Offered, answer: Any, comparison: Comparison) -> str:
    if answer.status_code != 200:
        return str(answer.status_code)
    try:
        meta, dataset = split(answer.content)
    except Rejected:
        return "no DICOM file"
    return comparison.verdict(one.dataset, (dataset, meta.transfer_syntax))
