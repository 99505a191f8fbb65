"""The manifest: what is expected of each file, by each route. Written anew by ``python -m tests.corpus.manifest``.

Each outcome is that of the first sending and, behind it, of the second by another route (`routes.ROUTES`). ``back``
says where what is retrieved is not equal to what was sent. What is not plain has a ``why``, which a person writes and
which writing anew keeps; review the difference before you commit it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from tests.corpus.accounting import Account, account_for_everything
from tests.corpus.offered import offered
from tests.corpus.routes import ROUTES

PATH = Path(__file__).with_name("manifest.json")
Manifest = Mapping[str, Mapping[str, Any]]


def of(account: Account) -> Manifest:
    """The manifest of what happened, without reasons."""
    entries: dict[str, dict[str, Any]] = {}
    for one in offered():
        entry: dict[str, Any] = {"sha256": one.sha256}
        entry.update({route: ", ".join(account.outcomes[route, one.name]) for route in ROUTES})
        back = {f"{by} {how}": said for (by, name, how), said in account.not_equal.items() if name == one.name}
        entries[one.name] = {**entry, **({"back": dict(sorted(back.items()))} if back else {})}
    return entries


def load() -> Manifest:
    """The checked-in one, reasons left out."""
    return {name: {key: entry[key] for key in entry if key != "why"} for name, entry in _read().items()}


def reasons() -> Mapping[str, str]:
    """Why an entry is as it is, by name of file."""
    return {name: entry["why"] for name, entry in _read().items() if "why" in entry}


def write(manifest: Manifest) -> None:
    """A line for each file; reasons are kept."""
    kept = reasons() if PATH.exists() else {}
    entries = {name: {**entry, **({"why": kept[name]} if name in kept else {})} for name, entry in manifest.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items()))
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _read() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(PATH.read_text())
    return entries


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        write(of(account_for_everything(Path(folder))))
