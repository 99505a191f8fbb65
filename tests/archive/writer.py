"""A process that commits to a PostgreSQL catalog as a worker does: ``python -m tests.archive.writer JOB``, in JSON.

It says ``ready``, waits for a line, commits its batches one after the other, each until it succeeds, and tells what
came of them. A test may have it stop itself, inside a transaction, at its first conflict.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from archive.catalog import KnownVersion
from archive.postgres import Bounds
from archive.sql_catalog import open_postgres_catalog
from runtime.errors import Retryable
from schemas.record import InstanceRecord, PatientAttributes, PlacedRecord
from tests.archive.samples import never_equal, placed, record

RETRIES_MAX = 2000


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a writer commits: `batches` of `size` records drawn from the universe; `seed` decides which."""

    url: str
    seed: int = 0
    batches: int = 1
    size: int = 40
    instances: int = 120
    studies: int = 3
    #: 0: nobody has a Patient ID.
    people: int = 7
    contents: str = "aaab"
    #: Commit exactly these (UID number, content) instead, as one batch.
    exactly: list[tuple[int, str]] = field(default_factory=list)
    freeze_at_conflict: bool = False
    lock_s: float = 20.0
    idle_in_transaction_s: float = 120.0


def of_universe(job: Job, number: int, content: str) -> InstanceRecord:
    """The record of an instance: its study, series and patient follow from its number."""
    study = f"2.{number % job.studies}"
    patient = PatientAttributes(patient_id=f"P{number % job.people}" if job.people else "", name="DOE^JANE")
    # A few have another content in another study, whose rows must be made as well.
    if content == "b" and number % 5 == 0:
        study = f"3.{number % job.studies}"
    return record(f"1.{number}", content, study=study, patient=patient)


def start(job: Job) -> subprocess.Popen[str]:
    """A writer that is ready to begin: write a line to it; `result` gives what came of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.archive.writer", json.dumps(asdict(job))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert _out(process).readline() == "ready\n"
    return process


def begin(*writers: subprocess.Popen[str]) -> None:
    """Let writers begin, all at once."""
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()


def result(writer: subprocess.Popen[str]) -> dict[str, Any]:
    """What a writer tells at its end: verdicts and reasons of retries, counted; digests noted as conflicts."""
    said = _out(writer).read()
    assert writer.wait(60) == 0
    assert writer.stdin is not None
    writer.stdin.close()
    _out(writer).close()
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


def _out(writer: subprocess.Popen[str]) -> IO[str]:
    assert writer.stdout is not None
    return writer.stdout


def main() -> None:
    """Do the job on the command line."""
    job = Job(**json.loads(sys.argv[1]))
    random_ = random.Random(job.seed)
    verdicts: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    noted: list[str] = []
    frozen = not job.freeze_at_conflict

    def note(one: PlacedRecord, stays: KnownVersion) -> None:
        nonlocal frozen
        noted.append(one.record.wire_sha256)
        if not frozen:
            frozen = True
            os.kill(os.getpid(), signal.SIGSTOP)

    bounds = Bounds(lock_s=job.lock_s, idle_in_transaction_s=job.idle_in_transaction_s)
    with closing(open_postgres_catalog(job.url, bounds=bounds)) as catalog:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(job.batches):
            chosen = job.exactly or [
                (random_.randrange(job.instances), random_.choice(job.contents)) for _ in range(job.size)
            ]
            batch = [placed(of_universe(job, number, content)) for number, content in chosen]
            for _ in range(RETRIES_MAX):
                try:
                    given = catalog.commit_batch(batch, equal=never_equal, on_conflict=note)
                except Retryable as error:
                    retries[str(error)] += 1
                else:
                    verdicts.update(type(one).__name__ for one in given)
                    break
    print(json.dumps({"verdicts": verdicts, "retries": retries, "noted": noted}))


if __name__ == "__main__":
    main()
