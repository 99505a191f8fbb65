"""A process's own metrics and readiness, served on a Unix socket; and the sum of all processes of one data folder.

Every role answers three paths on ``<role>-<index>.sock`` in its run folder:

| path            | answer |
|-----------------|--------|
| `/health/live`  | 200 while the process runs |
| `/health/ready` | 200 once it takes work, 503 before and while it drains |
| `/metrics`      | its metrics, Prometheus text format |

The web role merges them (`merge_metrics`): one scrape for one machine, each sample labelled with its process. A process
that was killed leaves a socket behind on which nobody answers; it is skipped, and replaced when the role comes back.
Limits: one request per connection, 4 KiB of request, one second per peer; a silent peer delays others by that second.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from runtime.errors import Misconfigured
from runtime.metrics import REGISTRY

#: The shortest sun_path of the systems we run on is 104 bytes, its final NUL included.
SOCKET_PATH_MAX_BYTES = 103
_LONGEST_NAME = "worker-63.sock"
_PEER_TIMEOUT_S = 1.0
_REQUEST_MAX_BYTES = 4096
_BACKLOG = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHealth:
    """What one running process says of itself."""

    role: str
    index: int
    ready: bool
    #: Whether it answered in time; one that hangs does not.
    answers: bool = True
    #: Prometheus text format.
    metrics: str


class HealthServer:
    """Serves this process's health from a daemon thread until `close`.

    Raises:
        Misconfigured: a living process already serves this role and index in this run folder.
    """

    def __init__(
        self, run_dir: Path, role: str, index: int = 0, registry: CollectorRegistry = REGISTRY, *, process: bool = True
    ) -> None:
        self.path = socket_path(run_dir, role, index)
        self._registries: list[Collector] = [registry]
        if process:
            self._registries.append(ProcessCollector(registry=None))
        self._ready = threading.Event()
        self._listener = _listen(self.path, f"{role}-{index}")
        self._closed = False
        threading.Thread(target=self._serve, name="health", daemon=True).start()

    def set_ready(self, ready: bool = True) -> None:
        """Say that this process takes work now, or, with False, that it no longer does."""
        (self._ready.set if ready else self._ready.clear)()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._closed = True
        self.path.unlink(missing_ok=True)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        try:
            peer.settimeout(_PEER_TIMEOUT_S)
            path = _read_path(peer)
            status, body = self._respond(path)
            head = (
                f"HTTP/1.0 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            peer.sendall(head.encode() + body)
        except OSError:
            pass  # the peer went away; there is nobody to tell

    def _respond(self, path: str) -> tuple[str, bytes]:
        if path == "/health/live":
            return "200 OK", b"live\n"
        if path == "/health/ready":
            return ("200 OK", b"ready\n") if self._ready.is_set() else ("503 Service Unavailable", b"not ready\n")
        if path == "/metrics":
            return "200 OK", b"".join(generate_latest(registry) for registry in self._registries)
        return "404 Not Found", b"there are /metrics, /health/live and /health/ready\n"


def socket_path(run_dir: Path, role: str, index: int) -> Path:
    """Where the process `role`-`index` of `run_dir` serves its health."""
    return _socket_dir(run_dir) / f"{role}-{index}.sock"


def is_ready(run_dir: Path, role: str, index: int = 0) -> bool:
    """Whether that process answers and takes work. Waits a second at most."""
    try:
        return _get(socket_path(run_dir, role, index), "/health/ready")[0] == 200
    except OSError:
        return False


def collect(run_dir: Path) -> list[ProcessHealth]:
    """Every process of `run_dir`, sorted by role and index; dead ones are left out, those that hang are not."""
    found = []
    for path in sorted(_socket_dir(run_dir).glob("*.sock")):
        role, _, index = path.stem.rpartition("-")
        if not role or not index.isdigit():
            continue
        try:
            ready = _get(path, "/health/ready")[0] == 200
            metrics = _get(path, "/metrics")[1].decode()
        except TimeoutError:
            found.append(ProcessHealth(role=role, index=int(index), ready=False, answers=False, metrics=""))
            continue
        except OSError:
            continue
        found.append(ProcessHealth(role=role, index=int(index), ready=ready, metrics=metrics))
    return sorted(found, key=lambda process: (process.role, process.index))


def running_names(run_dir: Path) -> frozenset[str]:
    """The processes of `run_dir` that answer, as ``edge-0``."""
    return frozenset(path.stem for path in _socket_dir(run_dir).glob("*.sock") if _answers(path))


def merge_metrics(run_dir: Path) -> bytes:
    """The metrics of all processes of `run_dir` as one page; each sample has `role` and `process` labels.

    Blocking: a second per process at worst.
    """
    return merge_pages(collect(run_dir))


def merge_pages(processes: Sequence[ProcessHealth]) -> bytes:
    """One page from several processes' pages: families joined by name, `role` and `process` labels added."""
    families: dict[str, Metric] = {}
    for process in processes:
        labels = {"role": process.role, "process": str(process.index)}
        for family in text_string_to_metric_families(process.metrics):
            if family.name.endswith("_created"):
                continue
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples.extend(_labelled(sample, labels) for sample in family.samples)
    return generate_latest(_Merged(families.values()))


class _Merged(Collector):
    """Ready-made families in a registry's place."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _labelled(sample: Sample, labels: dict[str, str]) -> Sample:
    return Sample(sample.name, {**sample.labels, **labels}, sample.value, sample.timestamp, sample.exemplar)


def _socket_dir(run_dir: Path) -> Path:
    """`run_dir`, or where its path is too long for a socket's address, a private folder among the temporary files."""
    folder = run_dir.absolute()
    if len(os.fsencode(folder / _LONGEST_NAME)) <= SOCKET_PATH_MAX_BYTES:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"sansfilm-{os.getuid()}-{digest}"


def _listen(path: Path, name: str) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.parent.stat().st_uid != os.getuid():
        raise Misconfigured(f"the folder {path.parent} belongs to another user: remove it")
    if _answers(path):
        raise Misconfigured(f"{name} of this data folder runs already: stop it first")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(_BACKLOG)
    return listener


def _answers(path: Path) -> bool:
    try:
        return _get(path, "/health/live")[0] == 200
    except OSError:
        return False


def _read_path(peer: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received and len(received) < _REQUEST_MAX_BYTES:
        piece = peer.recv(_REQUEST_MAX_BYTES)
        if not piece:
            break
        received += piece
    words = received.split(b"\r\n", 1)[0].split()
    return words[1].decode("ascii", "replace") if len(words) >= 2 else ""


def _get(path: Path, target: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError when nobody answers in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_PEER_TIMEOUT_S)
        peer.connect(str(path))
        peer.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        received = b"".join(iter(lambda: peer.recv(65536), b""))
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionError("no answer")
    return int(head.split()[1]), body
