"""sansfilm and its peers: each started on loopback in a folder of its own, with its settings told.

A receiver is a context manager that is ready when entered. `found` says how many instances a reader would find, asked
the way a reader asks; receivers that index nothing have none.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A running receiver."""

    name: str
    version: str
    port: int
    pid: int
    settings: dict[str, object]
    found: Callable[[], int] | None = None


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def sansfilm(
    folder: Path, *, transcode: str = "htj2k", edge_only: bool = False, **environment: str
) -> Iterator[Receiver]:
    """`sansfilm up`, or the edge alone."""
    dicom, http = free_port(), free_port()
    settings = {
        "SANSFILM_DATA_DIR": str(folder),
        "SANSFILM_DICOM_PORT": str(dicom),
        "SANSFILM_HTTP_PORT": str(http),
        "SANSFILM_TRANSCODE": transcode,
        "SANSFILM_DISK_RESERVE_BYTES": "0",
        **environment,
    }
    command = [str(Path(sys.executable).with_name("sansfilm")), "edge" if edge_only else "up"]
    name = "sansfilm edge" if edge_only else f"sansfilm {transcode}"
    with _process(command, environment={**os.environ, **settings}, log=folder.with_suffix(".log")) as process:
        if not edge_only:
            _wait_http(f"http://127.0.0.1:{http}/health/ready", process)
        _wait_port(dicom, process)
        yield Receiver(
            name=name,
            version=_version([command[0], "--version"]),
            port=dicom,
            pid=process.pid,
            settings={key: value for key, value in settings.items() if "DIR" not in key and "PORT" not in key},
            found=None if edge_only else lambda: sansfilm_found(http),
        )


@contextmanager
def dcmtk_storescp(folder: Path) -> Iterator[Receiver]:
    """DCMTK's storescp: neither syncs nor indexes; the floor of what receiving costs."""
    port = free_port()
    folder.mkdir(parents=True)
    command = ["storescp", "--fork", "--bit-preserving", "-pdu", "131072", "-od", str(folder), str(port)]
    with _process(command, environment={**os.environ, "TCP_NODELAY": "1"}, log=folder.with_suffix(".log")) as process:
        _wait_port(port, process)
        yield Receiver(
            name="DCMTK storescp",
            version=_version(["storescp", "--version"]),
            port=port,
            pid=process.pid,
            settings={"options": command[1:5], "TCP_NODELAY": "1"},
        )


@contextmanager
def floor(folder: Path) -> Iterator[Receiver]:
    """Receive, write, sync, and nothing else: what any durable acknowledgement costs with this sender and disk."""
    port = free_port()
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.floor_peer", str(port), str(folder)]
    with _process(command, environment=dict(os.environ), log=folder.with_suffix(".log")) as process:
        _wait_port(port, process)
        yield Receiver(name="floor", version=sys.version.split()[0], port=port, pid=process.pid, settings={})


@contextmanager
def pynetdicom_storescp(folder: Path) -> Iterator[Receiver]:
    """pynetdicom's own storage application entity, writing each data set as it came."""
    port = free_port()
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.pynetdicom_peer", str(port), str(folder)]
    with _process(command, environment=dict(os.environ), log=folder.with_suffix(".log")) as process:
        _wait_port(port, process)
        import pynetdicom

        yield Receiver(
            name="pynetdicom storescp",
            version=pynetdicom.__version__,
            port=port,
            pid=process.pid,
            settings={"maximum_pdu_size": 131072},
        )


@contextmanager
def orthanc(folder: Path, *, jpeg_ls: bool = False) -> Iterator[Receiver]:
    """Orthanc with its defaults, its DICOMweb plug-in, SQLite; optionally JPEG-LS lossless on ingest."""
    dicom, http = free_port(), free_port()
    folder.mkdir(parents=True)
    settings: dict[str, object] = {
        "DicomPort": dicom,
        "HttpPort": http,
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "OverwriteInstances": False,
        "Plugins": ["/usr/lib/orthanc/libOrthancDicomWeb.so.1.7"],
    }
    if jpeg_ls:
        settings["IngestTranscoding"] = "1.2.840.10008.1.2.4.80"
    configuration = folder.with_suffix(".json")
    configuration.write_text(json.dumps(settings))
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with _process(["Orthanc", str(configuration)], environment=environment, log=folder.with_suffix(".log")) as process:
        _wait_http(f"http://127.0.0.1:{http}/system", process)
        _wait_port(dicom, process)
        yield Receiver(
            name="Orthanc JPEG-LS" if jpeg_ls else "Orthanc",
            version=_version(["Orthanc", "--version"]),
            port=dicom,
            pid=process.pid,
            settings={k: v for k, v in settings.items() if "Port" not in k and "Directory" not in k},
            found=lambda: int(_get_json(f"http://127.0.0.1:{http}/statistics")["CountInstances"]),
        )


def sansfilm_found(http: int) -> int:
    """Instances that QIDO-RS tells of in the first hundred studies, at the port of a web role."""
    studies = _get_json(f"http://127.0.0.1:{http}/dicom-web/studies?limit=100")
    return sum(int(study["00201208"]["Value"][0]) for study in studies or ())


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # loopback only
        body = answer.read()
    return json.loads(body) if body else None


@contextmanager
def _process(command: list[str], *, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{what} did not become ready")
        time.sleep(0.02)


def _wait_port(port: int, process: subprocess.Popen[bytes]) -> None:
    _wait(lambda: _listens(port), f"port {port}", process)


def _listens(port: int) -> bool:
    wanted = f":{port:04X} "
    return any(
        wanted in line and line.split()[3] == "0A" for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )


def _wait_http(url: str, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    _wait(answers, url, process)


def _version(command: list[str]) -> str:
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    return (output.stdout or output.stderr).splitlines()[0].strip()
