"""Several processes commit to one PostgreSQL at once; some are frozen, some are late, and the server dies."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archive.postgres import Bounds
from archive.sql_catalog import SqlCatalog, open_postgres_catalog
from archive.sql_reader import SqlCatalogReader, open_postgres_reader
from region.postgres import PostgresServer
from runtime.errors import Retryable
from schemas.decisions import UseVersion
from tests.archive.contract_catalog import commit
from tests.archive.samples import NEW, SAME, TENANT, record
from tests.archive.writer import Job, begin, of_universe, result, start
from tests.region.postgres import make_tables
from tests.waiting import until


@pytest.fixture
def reader(catalog_url: str) -> Iterator[SqlCatalogReader]:
    with closing(open_postgres_reader(catalog_url)) as opened:
        yield opened


#: How many sessions of this database wait for another one.
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def query(url: str, statement: str) -> list[Any]:
    """Rows of a statement, asked beside everybody."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def check_counts(url: str, reader: SqlCatalogReader) -> Counter[str]:
    """Every count that is kept is what is there; gives how many versions each instance has."""
    counted = query(
        url,
        "SELECT (SELECT count(*) FROM instance), (SELECT count(*) FROM version), (SELECT count(*) FROM sop),"
        " (SELECT count(*) FROM instance WHERE version_count > 1), (SELECT count(DISTINCT study_id) FROM instance),"
        " (SELECT count(DISTINCT series_id) FROM instance), (SELECT sum(size_bytes) FROM version)",
    )[0]
    counters = reader.counters(TENANT)
    kept = [
        counters[name] for name in ("instances", "versions", "instances", "conflicts", "studies", "series", "bytes")
    ]
    assert kept == [int(one) for one in counted]
    for table in ("study", "series"):
        wrong = query(
            url,
            f"SELECT t.id FROM {table} t LEFT JOIN instance i ON i.{table}_id = t.id GROUP BY t.id"
            " HAVING t.instance_count <> count(i.id)"
            " OR t.conflict_count <> count(*) FILTER (WHERE i.version_count > 1)",
        )
        assert wrong == [], table
    assert query(url, "SELECT s.id FROM study s WHERE series_count <> (SELECT count(*) FROM series r"
                      " WHERE r.study_id = s.id AND r.instance_count > 0)") == []  # fmt: skip
    twice = "SELECT instance_id FROM version GROUP BY instance_id, wire_sha256 HAVING count(*) > 1"
    assert query(url, twice) == []
    numbers = "SELECT instance_id FROM version GROUP BY instance_id HAVING max(number) <> count(*) OR min(number) <> 1"
    assert query(url, numbers) == []
    assert query(url, "SELECT value FROM patient_identifier GROUP BY value HAVING count(*) > 1") == []
    assert query(url, "SELECT p.id FROM patient p LEFT JOIN patient_identifier i ON i.patient_id = p.id"
                      " WHERE i.id IS NULL") == []  # fmt: skip
    return Counter(dict(query(url, "SELECT sop_instance_uid, version_count FROM instance")))


@pytest.mark.parametrize(("studies", "people"), [(1, 60), (40, 60), (400, 0)])
def test_four_processes_commit_overlapping_batches(
    catalog_url: str, reader: SqlCatalogReader, studies: int, people: int
) -> None:
    """Same UIDs, some of other content, the same people, other orders: no deadlock, exact rows, exact counts."""
    jobs = [
        Job(url=catalog_url, seed=seed, batches=24, instances=800, studies=studies, people=people, contents="aaabc")
        for seed in range(4)
    ]
    writers = [start(job) for job in jobs]
    begin(*writers)
    told = [result(writer) for writer in writers]
    assert sum((Counter(one["retries"]) for one in told), Counter()) == {}
    verdicts: Counter[str] = sum((Counter(one["verdicts"]) for one in told), Counter())
    versions = check_counts(catalog_url, reader)
    assert verdicts["New"] == len(versions) <= 800
    assert verdicts["New"] + verdicts["Conflict"] == versions.total()
    assert verdicts["Same"] == 4 * 24 * 40 - versions.total()
    noted = [digest for one in told for digest in one["noted"]]
    assert len(noted) == verdicts["Conflict"], "each conflict was in the journal once, of whoever kept it"


def test_a_worker_frozen_in_its_transaction_holds_others_up_for_a_bounded_time(
    catalog_url: str, reader: SqlCatalogReader
) -> None:
    """Its session is ended, what it held is free, and when it comes back it commits the same again."""
    batch = [(1, "a"), (2, "a"), (1, "b")]
    frozen = start(Job(url=catalog_url, exactly=batch, freeze_at_conflict=True, idle_in_transaction_s=1.0))
    begin(frozen)
    until(lambda: _state(frozen) == "T", what="the writer stopped itself")
    impatient = open_postgres_catalog(catalog_url, bounds=Bounds(lock_s=0.2))
    records = [of_universe(Job(url=""), number, content) for number, content in batch]
    with closing(impatient):
        with pytest.raises(Retryable, match="LockNotAvailable"):
            commit(impatient, *records)
        assert reader.counters(TENANT)["instances"] == 0
    other = start(Job(url=catalog_url, exactly=batch))
    begin(other)
    assert result(other)["verdicts"] == {"New": 2, "Conflict": 1}
    frozen.send_signal(signal.SIGCONT)
    told = result(frozen)
    assert told["verdicts"] == {"Same": 3}
    assert list(told["retries"].values()) == [1], told
    assert check_counts(catalog_url, reader) == {"1.1": 2, "1.2": 1}


def test_a_worker_frozen_for_a_moment_goes_on(catalog_url: str, reader: SqlCatalogReader) -> None:
    """Another one that commits the same waits for it, and then everything is Same."""
    batch = [(1, "a"), (2, "a"), (1, "b")]
    frozen, other = (
        start(Job(url=catalog_url, exactly=batch, freeze_at_conflict=True)),
        start(Job(url=catalog_url, exactly=batch)),
    )
    begin(frozen)
    until(lambda: _state(frozen) == "T", what="the writer stopped itself")
    begin(other)
    until(lambda: query(catalog_url, WAITING) == [(1,)], what="the other one waits")
    frozen.send_signal(signal.SIGCONT)
    assert (result(frozen)["verdicts"], result(other)["verdicts"]) == ({"New": 2, "Conflict": 1}, {"Same": 3})
    assert check_counts(catalog_url, reader) == {"1.1": 2, "1.2": 1}


def test_two_further_versions_at_once_are_both_kept(catalog_url: str, reader: SqlCatalogReader) -> None:
    """The second one waits, reads what the first one added, and numbers its own after it."""
    with closing(open_postgres_catalog(catalog_url)) as catalog:
        commit(catalog, of_universe(Job(url=""), 1, "a"))
    frozen = start(Job(url=catalog_url, exactly=[(1, "c")], freeze_at_conflict=True))
    begin(frozen)
    until(lambda: _state(frozen) == "T", what="the writer stopped itself")
    others = [start(Job(url=catalog_url, exactly=[(1, content)])) for content in "dcd"]
    begin(*others)
    until(lambda: query(catalog_url, WAITING) == [(3,)], what="the others wait")
    frozen.send_signal(signal.SIGCONT)
    told: Counter[str] = sum((Counter(result(one)["verdicts"]) for one in [frozen, *others]), Counter())
    assert told == {"Conflict": 2, "Same": 2}
    assert check_counts(catalog_url, reader) == {"1.1": 3}


def test_a_person_whom_two_workers_meet_for_the_first_time_is_one(catalog_url: str, reader: SqlCatalogReader) -> None:
    frozen = start(Job(url=catalog_url, exactly=[(1, "a"), (1, "b")], freeze_at_conflict=True))
    begin(frozen)
    until(lambda: _state(frozen) == "T", what="the writer stopped itself")
    other = start(Job(url=catalog_url, exactly=[(8, "a")]))
    begin(other)
    until(lambda: query(catalog_url, WAITING) == [(1,)], what="the other one waits")
    frozen.send_signal(signal.SIGCONT)
    assert (result(frozen)["verdicts"], result(other)["verdicts"]) == ({"New": 1, "Conflict": 1}, {"New": 1})
    check_counts(catalog_url, reader)
    assert query(catalog_url, "SELECT count(DISTINCT patient_row) FROM study WHERE instance_count > 0") == [(1,)]


def test_a_decision_redelivered_to_two_workers_is_executed_once(catalog_url: str, reader: SqlCatalogReader) -> None:
    first, other = record("1.1", "a", study="1.2"), record("1.1", "b", study="9.9")
    with closing(open_postgres_catalog(catalog_url)) as one, closing(open_postgres_catalog(catalog_url)) as two:
        commit(one, first, other)
        chosen = UseVersion(tenant=TENANT, sop_instance_uid="1.1", wire_sha256=other.wire_sha256)
        done: list[bool] = []

        def apply(catalog: SqlCatalog) -> None:
            done.append(catalog.apply(chosen, decision_id="d1", decided_at="now", decided_by="ops"))

        threads = [threading.Thread(target=apply, args=(catalog,)) for catalog in (one, two)]
        with psycopg.connect(catalog_url) as third:
            third.execute("SELECT pg_advisory_xact_lock(hashtextextended('decision d1', 0))")
            for thread in threads:
                thread.start()
            until(lambda: query(catalog_url, WAITING) == [(2,)], what="both wait for a third one that has it")
        for thread in threads:
            thread.join(20)
    assert done == [True, True]
    assert check_counts(catalog_url, reader) == {"1.1": 2}
    assert query(catalog_url, "SELECT decision_id FROM decision") == [("d1",)]


def test_a_server_that_is_killed_while_workers_commit(tmp_path: Path) -> None:
    """They repeat what they do not know the end of; nothing is doubled, nothing is missing."""
    with PostgresServer(tmp_path / "server") as server:
        url = server.url()
        make_tables(url)
        writers = [start(Job(url=url, seed=seed, batches=60, instances=2000, contents="aaaab")) for seed in range(2)]
        begin(*writers)
        with closing(open_postgres_reader(url)) as reader:
            for kill in range(3):
                seen = (kill + 1) * 200
                until(lambda seen=seen: reader.counters(TENANT)["instances"] > seen, what="they commit")  # type: ignore[misc]
                server.kill()
                with pytest.raises(Retryable):
                    reader.counters(TENANT)
                server.start()
            told = [result(writer) for writer in writers]
            assert all(one["retries"] for one in told), "both met the kills"
            versions = check_counts(url, reader)
            verdicts: Counter[str] = sum((Counter(one["verdicts"]) for one in told), Counter())
            assert verdicts.total() == 2 * 60 * 40
            assert verdicts["New"] <= len(versions), "a commit whose answer was lost is Same when it is repeated"


def test_a_server_that_stops_answering_is_retryable(tmp_path: Path) -> None:
    """No packet tells that it is frozen; the wait ends all the same, and the next call is right again."""
    with PostgresServer(tmp_path / "server") as server:
        make_tables(server.url())
        bounds = Bounds(statement_s=0.5, patience_s=0.5, connect_s=2)
        with closing(open_postgres_catalog(server.url(), bounds=bounds)) as catalog:
            assert commit(catalog, record("1.1")) == [NEW]
            server.freeze()
            with pytest.raises(Retryable, match="not available"):
                commit(catalog, record("1.2"))
            server.thaw()
            assert commit(catalog, record("1.1"), record("1.2")) == [SAME, NEW]


def _state(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
