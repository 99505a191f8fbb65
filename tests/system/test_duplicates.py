"""The same instance many times, and other content under a known UID: through the whole system, and without it."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archive.catalog import Scope
from archive.restore_script import PREFIX
from archive.sql_reader import SqlCatalogReader, open_reader
from cli.association import Association, Peer
from schemas.record import InstanceRecord
from tests.archive.house import snapshot
from tests.cli.test_up import House
from tests.crash.ledger import Item
from tests.crash.modalities import CONTEXTS, INLINE_MAX_BYTES, encoded
from tests.datasets import ROOT

ASSOCIATIONS = 8
SCOPE = Scope(principal="test", tenant="default")
SETTINGS = {"SANSFILM_INLINE_MAX_BYTES": str(INLINE_MAX_BYTES)}


def store(house: House, *items: Item, barrier: threading.Barrier | None = None) -> list[int]:
    """Send `items` over an association of their own, together with the others at the barrier; gives the statuses."""
    peer = Peer(called_ae="SANSFILM", host="127.0.0.1", port=house.dicom_port)
    association = Association(peer, CONTEXTS, timeout_s=30)
    statuses = []
    for one in items:
        if barrier is not None:
            barrier.wait(30)
        context = (one.sop_class_uid, one.transfer_syntax)
        statuses.append(association.store(context, one.sop_instance_uid, memoryview(one.dataset)))
    association.release()
    return statuses


def asked(house: House, *words: str) -> Any:
    """What a command says as JSON; it must succeed."""
    done = house.run(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def drained(house: House) -> Any:
    """The counters, once the log is empty."""
    return asked(house, "status", "--wait-drained", "--timeout-s", "30")["archive"]


def reader_of(house: House) -> closing[SqlCatalogReader]:
    return closing(open_reader(house.folder / "catalog" / "catalog.sqlite"))


def test_the_same_files_from_eight_associations_at_once(house: House) -> None:
    items = [encoded("own", number, study=1, series=1) for number in range(1, 21)]
    items += [encoded("claim", number, study=1, series=2, rows=256, columns=160) for number in range(1, 6)]
    items += [encoded("adopted", number, study=1, series=3, rows=256, columns=160) for number in range(1, 6)]
    barrier = threading.Barrier(ASSOCIATIONS)
    answers: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(store(house, *items, barrier=barrier)))
        for _ in range(ASSOCIATIONS)
    ]
    with house.up(**SETTINGS) as process:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        counters = drained(house)
        assert answers == [[0] * len(items)] * ASSOCIATIONS
        found = json.loads(house.get("/dicom-web/instances?limit=1000")[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert len(found) == len(items)
    assert counters | {"bytes": 0} == {
        "studies": 1, "series": 3, "instances": 30, "versions": 30, "conflicts": 0, "quarantined": 0,
        "decisions": 0, "mixed": 0, "bytes": 0,
    }  # fmt: skip
    with reader_of(house) as reader:
        rows = Counter(_content(placed.record) for placed, _ in reader.placed())
    assert rows == {one.content: 1 for one in items}
    assert asked(house, "archive", "verify")["clean"]


@pytest.fixture
def versions() -> list[Item]:
    """Three contents under one UID: the first, another one, and one that says it belongs to another study."""
    first, other = (encoded("own", 1, study=1, series=1, seed=seed) for seed in (0, 1))
    elsewhere = encoded("own", 1, study=2, series=1, seed=2, SOPInstanceUID=first.sop_instance_uid)
    return [first, other, elsewhere]


def test_conflicts_are_kept_shown_and_decided(house: House, versions: list[Item], tmp_path: Path) -> None:
    first, other, elsewhere = versions
    uid, neighbour = first.sop_instance_uid, encoded("own", 2, study=1, series=1)
    with house.up(**SETTINGS) as process:
        for one in (first, neighbour, other, elsewhere, first, other):
            assert store(house, one) == [0]
            counters = drained(house)
        assert {name: counters[name] for name in ("studies", "instances", "versions", "conflicts")} == {
            "studies": 1, "instances": 2, "versions": 4, "conflicts": 1,
        }  # fmt: skip
        assert current(house, uid) == first.content[1]
        assert study_of(house, uid) == f"{ROOT}.1"
        retrievable(house, versions, tmp_path)

        asked(house, "conflict", "use", uid, other.content[1])
        assert (current(house, uid), study_of(house, uid)) == (other.content[1], f"{ROOT}.1")
        assert pixels(other) in served(house, f"{ROOT}.1", uid)
        asked(house, "conflict", "use", uid, elsewhere.content[1][:16])
        assert (current(house, uid), study_of(house, uid)) == (elsewhere.content[1], f"{ROOT}.2")
        asked(house, "conflict", "use", uid, first.content[1])
        assert (current(house, uid), study_of(house, uid)) == (first.content[1], f"{ROOT}.1")
        assert pixels(first) in served(house, f"{ROOT}.1", uid)
        asked(house, "conflict", "use", uid, elsewhere.content[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    with reader_of(house) as reader:
        live = snapshot(reader)
        assert asked(house, "archive", "rebuild")["clean"]
        assert snapshot(reader) == live
    assert current(house, uid) == elsewhere.content[1]
    retrievable(house, versions, tmp_path)
    assert asked(house, "archive", "verify")["clean"]
    extracted_by_hand(house, [*versions, neighbour], tmp_path)


def current(house: House, uid: str) -> str:
    """The digest of the version that `conflict ls` and `trace` call current."""
    shown = [row for row in asked(house, "conflict", "ls") if row["current"]]
    traced = [row for row in asked(house, "trace", uid)["versions"] if row["current"]]
    assert len(shown) == len(traced) == 1
    assert shown[0]["wire_sha256"] == traced[0]["wire_sha256"]
    return str(shown[0]["wire_sha256"])


def study_of(house: House, uid: str) -> str:
    """The study under which readers find the instance."""
    (found,) = json.loads(house.get(f"/dicom-web/instances?SOPInstanceUID={uid}")[1])
    return str(found["0020000D"]["Value"][0])


def served(house: House, study: str, uid: str) -> bytes:
    """The instance as WADO-RS gives it."""
    url = f"http://127.0.0.1:{house.http_port}/dicom-web/studies/{study}/series/{study}.1/instances/{uid}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def pixels(one: Item) -> bytes:
    """The samples, which end a data set of these tests."""
    return one.dataset[-32 * 32 * 2 :]


def retrievable(house: House, versions: list[Item], folder: Path) -> None:
    """Every version is in `trace`, and `archive original` gives it back as it was sent."""
    uid = versions[0].sop_instance_uid
    traced = [row["wire_sha256"] for row in asked(house, "trace", uid)["versions"]]
    assert sorted(traced) == sorted(one.content[1] for one in versions)
    for one in versions:
        output = folder / "original"
        words = ("archive", "original", uid, "--version", one.content[1], "--dataset-only", "-o", str(output))
        done = house.run(*words)
        assert done.returncode == 0, done.stderr
        assert output.read_bytes() == one.dataset
        output.unlink()


def extracted_by_hand(house: House, items: list[Item], folder: Path) -> None:
    """With tar alone all versions lie side by side with their provenance; restore.py makes originals of them."""
    segments = sorted((house.folder / "archive" / "segments").rglob("*.tar"))
    for segment in segments:
        subprocess.run(["tar", "--xattrs", "-xf", segment, "-C", folder], check=True, timeout=30)
    names = {}
    for segment in segments:
        with tarfile.open(segment) as opened:
            said = {member.name: member.pax_headers.get(f"{PREFIX}wire_sha256") for member in opened}
            names.update({digest: name for name, digest in said.items() if digest})
    assert names.keys() == {one.content[1] for one in items}
    assert all((folder / name).is_file() for name in names.values())
    script = str(house.folder / "archive" / "restore.py")
    command = [sys.executable, "-I", script, "restore", "--to", str(folder / "out"), *map(str, segments)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    for one in items:
        restored = (folder / "out" / names[one.content[1]]).read_bytes()
        assert restored.endswith(one.dataset)
        assert hashlib.sha256(restored[-len(one.dataset) :]).hexdigest() == one.content[1]


def _content(record: object) -> tuple[str, str]:
    assert isinstance(record, InstanceRecord)
    return record.instance.sop_instance_uid, record.wire_sha256
