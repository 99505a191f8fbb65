"""The PostgreSQL that tests and benchmarks run on: what it promises them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from region.postgres import PostgresServer
from tests.waiting import until


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "server") as server:
        url = server.create_database("one")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (n int)")
            connection.execute("INSERT INTO t VALUES (7)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=2)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM t").fetchone() == (7,)
            assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_it_asks_for_a_password_and_listens_on_loopback_alone(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url().replace(postgres.url().split(":")[2].partition("@")[0], "wrong"))
    with postgres.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_it_never_runs_as_root(postgres: PostgresServer) -> None:
    assert postgres._process is not None
    status = Path(f"/proc/{postgres._process.pid}/status").read_text()
    assert "Uid:\t0" not in status


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from region.postgres import PostgresServer\n"
        "with PostgresServer(Path(sys.argv[1])) as server:\n"
        "    print(server._process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "server")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait(20)
    parent.stdin.close()
    parent.stdout.close()
    until(lambda: not _lives(pid), what="the server ended")


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
