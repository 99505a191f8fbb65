"""`sansfilm up` as an operator meets it: the whole product in processes of its own, on real sockets and folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from runtime.health import is_ready
from tests.datasets import PLANTED, write_exam
from tests.waiting import until

ROLES = ("edge", "worker", "web")
#: The same command as the installed one, of this very checkout.
SANSFILM = [sys.executable, "-m", "cli.main"]
ROOT = Path(__file__).resolve().parents[2]
needs_mounts = pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="mounting in a namespace of its own (unshare -m) needs root",
)


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class House:
    """One data folder with ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dicom_port, self.http_port = free_ports(2)
        self.env = {
            **os.environ,
            "SANSFILM_DATA_DIR": str(folder),
            "SANSFILM_DICOM_PORT": str(self.dicom_port),
            "SANSFILM_HTTP_PORT": str(self.http_port),
            "SANSFILM_DISK_RESERVE_BYTES": "0",
        }

    def run(self, *words: str, prefix: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end: in this process, or in one of its own below `prefix`."""
        if not prefix:
            done = CliRunner().invoke(app, words, env={**self.env, **env})
            return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
        command = [*prefix, *SANSFILM, *words]
        return subprocess.run(
            command, env={**self.env, **env}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    @contextmanager
    def up(self, **env: str) -> Iterator[subprocess.Popen[str]]:
        """`sansfilm up`, ready."""
        process = subprocess.Popen(
            [*SANSFILM, "up"],
            env={**self.env, **env},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                self.wait_ready(process)
                yield process
            finally:
                process.kill()

    def wait_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        heard = []
        for line in process.stdout:
            heard.append(line)
            if "sansfilm is ready" in line:
                return
        raise AssertionError("".join(heard))

    def status(self) -> dict[str, object]:
        said: dict[str, object] = json.loads(self.run("status", "--json").stdout)
        return said

    def get(self, path: str) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


def children(process: subprocess.Popen[str]) -> list[int]:
    """Its child processes."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in pids]


def test_from_a_file_to_a_found_study_and_a_clean_stop(house: House, tmp_path: Path) -> None:
    write_exam(tmp_path / "exam", slices=5)
    with house.up() as process:
        sent = house.run("send", str(tmp_path / "exam"), "--to", f"SANSFILM@127.0.0.1:{house.dicom_port}")
        assert sent.returncode == 0, sent.stderr
        drained = house.run("status", "--wait-drained", "--timeout-s", "20", "--json")
        assert drained.returncode == 0, drained.stdout
        said = json.loads(drained.stdout)
        assert said["processes"] == {"edge-0": True, "web-0": True, "worker-0": True}
        assert said["archive"]["instances"] == 5
        status, found = house.get("/dicom-web/studies")
        assert (status, len(json.loads(found))) == (200, 1)
        assert house.get("/health/ready")[0] == 200
        metrics = house.get("/metrics")[1]
        assert 'sansfilm_instances_received_total{process="0",role="edge",route="cstore"} 5.0' in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert house.run("archive", "verify").returncode == 0
    logs = "".join(path.read_text() for path in (house.folder / "logs").iterdir())
    assert not any(value in logs + metrics for value in PLANTED.values())


def test_killed_roles_come_back_and_work_goes_on(house: House, tmp_path: Path) -> None:
    with house.up() as process:
        for round_, victim in enumerate(ROLES, start=1):
            os.kill(_pid_of(process, victim), signal.SIGKILL)
            until(lambda: _all_ready(process, house), timeout_s=30, what=f"readiness after killing {victim}")
            write_exam(tmp_path / str(round_), slices=2, study=round_)
            to = f"X@127.0.0.1:{house.dicom_port}"
            sent = house.run("send", str(tmp_path / str(round_)), "--to", to, "--retries", "5")
            assert sent.returncode == 0, sent.stdout + sent.stderr
        assert house.run("status", "--wait-drained", "--timeout-s", "20").returncode == 0
        assert house.status()["archive"]["instances"] == 6  # type: ignore[index]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_terminal_that_goes_away_stops_nothing(house: House) -> None:
    with house.up() as process:
        assert process.stdout is not None
        process.stdout.close()
        for victim in ("edge", "web"):
            os.kill(_pid_of(process, victim), signal.SIGKILL)
            until(lambda: _all_ready(process, house), timeout_s=30, what=f"readiness after killing {victim}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_terminal_that_nobody_reads_stops_nothing(house: House) -> None:
    """A pager that waits, or Ctrl-S: notices are lost, roles are watched all the same."""
    with house.up() as process:
        terminal = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(terminal, bytes(4096))
        os.close(terminal)
        for victim in ROLES:
            os.kill(_pid_of(process, victim), signal.SIGKILL)
            until(lambda: _all_ready(process, house), timeout_s=30, what=f"readiness after killing {victim}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_demo_can_be_opened(house: House) -> None:
    with house.up(SANSFILM_EDGE_PROCESSES="2") as process:
        said = house.run("demo", "--slices", "2", "--seed", "7", "--json")
        assert said.returncode == 0, said.stderr
        answer = json.loads(said.stdout)
        assert answer["instances"] == 6
        assert answer["link"].startswith(f"http://127.0.0.1:{house.http_port}/viewer?StudyInstanceUIDs=2.25.")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_second_instance_on_the_folder(house: House) -> None:
    with house.up():
        other = House(house.folder)
        refused = other.run("up")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sansfilm: sansfilm runs already on the folder {house.folder}")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("which", ["dicom", "http"])
def test_a_port_in_use(house: House, which: str) -> None:
    port = house.dicom_port if which == "dicom" else house.http_port
    with socket.create_server(("127.0.0.1", port)):
        refused = house.run("up")
    assert refused.returncode == 2
    assert f"ort {port} on 127.0.0.1 is in use" in refused.stderr
    assert f"SANSFILM_{which.upper()}_PORT" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_file_in_place_of_the_folder(house: House) -> None:
    house.folder.touch()
    refused = house.run("up")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"sansfilm: {house.folder} is not a folder: remove what is there, or set SANSFILM_DATA_DIR to another one\n"
    )


@needs_mounts
def test_a_read_only_folder(house: House) -> None:
    house.folder.mkdir()
    mount = f'mount --bind {house.folder} {house.folder} && mount -o remount,ro,bind {house.folder} && exec "$@"'
    refused = house.run("up", prefix=("unshare", "-m", "sh", "-c", mount, "sh"))
    assert refused.returncode == 2
    assert f"the folder {house.folder} cannot be written" in refused.stderr


@needs_mounts
def test_a_full_disk(house: House) -> None:
    house.folder.mkdir()
    mount = f"mount -t tmpfs -o size=1m none {house.folder} && mkdir {house.folder}/run {house.folder}/logs"
    fill = f"head -c 4m /dev/zero > {house.folder}/filler 2>/dev/null"
    refused = house.run("up", prefix=("unshare", "-m", "sh", "-c", f'{mount}; {fill}; exec "$@"', "sh"))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sansfilm: the disk of the folder {house.folder} is full: ")
    assert refused.stderr.count("\n") == 1


def test_another_address_needs_consent(house: House) -> None:
    refused = house.run("up", "--bind-address", "0.0.0.0")
    assert refused.returncode == 2
    assert "is not loopback" in refused.stderr


def test_a_demo_without_a_server_says_what_to_start(house: House) -> None:
    refused = house.run("demo", "--slices", "1", "--series", "T1")
    assert refused.returncode == 1
    assert "cannot be reached: connection refused" in refused.stderr


def _pid_of(process: subprocess.Popen[str], role: str) -> int:
    """The child that listens on the role's health socket."""
    for pid in children(process):
        if f"{role}-0.sock" in _sockets(pid):
            return pid
    raise AssertionError(f"no {role}")


def _sockets(pid: int) -> str:
    """Paths of the Unix sockets that a process listens on."""
    held = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return " ".join(row[7] for row in rows if len(row) > 7 and f"socket:[{row[6]}]" in held)


def _all_ready(process: subprocess.Popen[str], house: House) -> bool:
    return len(children(process)) == 3 and all(is_ready(house.folder / "run", role) for role in ROLES)
