"""Health sockets: what a process says of itself, and the sum of several."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from runtime import health
from runtime.errors import Misconfigured
from runtime.health import HealthServer, ProcessHealth, collect, is_ready, merge_metrics, merge_pages, socket_path
from tests.waiting import until


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("things_total", "Things.", ["kind"], registry=registry).labels("a").inc(3)
    return registry


@pytest.fixture
def server(tmp_path: Path, registry: CollectorRegistry) -> Iterator[HealthServer]:
    server = HealthServer(tmp_path, "edge", 0, registry, process=False)
    yield server
    server.close()


def test_ready_only_when_said(server: HealthServer, tmp_path: Path) -> None:
    assert not is_ready(tmp_path, "edge")
    server.set_ready()
    assert is_ready(tmp_path, "edge")
    server.set_ready(False)
    assert not is_ready(tmp_path, "edge")


def test_close_removes_the_socket(tmp_path: Path, registry: CollectorRegistry) -> None:
    server = HealthServer(tmp_path, "worker", 0, registry)
    assert socket_path(tmp_path, "worker", 0).exists()
    server.close()
    assert not socket_path(tmp_path, "worker", 0).exists()
    assert collect(tmp_path) == []


def test_collect_names_role_index_readiness_and_metrics(
    server: HealthServer, tmp_path: Path, registry: CollectorRegistry
) -> None:
    second = HealthServer(tmp_path, "edge", 1, registry, process=False)
    second.set_ready()
    try:
        found = collect(tmp_path)
    finally:
        second.close()
    assert [(one.role, one.index, one.ready) for one in found] == [("edge", 0, False), ("edge", 1, True)]
    assert 'things_total{kind="a"} 3.0' in found[0].metrics


def test_a_dead_process_is_skipped_and_its_socket_taken_over(tmp_path: Path, registry: CollectorRegistry) -> None:
    code = (
        "import sys, time, threading; from pathlib import Path; from runtime.health import HealthServer;"
        "HealthServer(Path(sys.argv[1]), 'web').set_ready(); threading.Event().wait(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        until(lambda: is_ready(tmp_path, "web"), what="the child's readiness")
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert socket_path(tmp_path, "web", 0).exists()
    assert not is_ready(tmp_path, "web")
    assert collect(tmp_path) == []
    HealthServer(tmp_path, "web", 0, registry).close()


def test_a_living_process_keeps_its_socket(server: HealthServer, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="edge-0 of this data folder runs already"):
        HealthServer(tmp_path, "edge", 0)


def test_a_silent_peer_does_not_block_the_others(server: HealthServer, tmp_path: Path) -> None:
    server.set_ready()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(server.path))
        until(lambda: is_ready(tmp_path, "edge"), what="an answer after the silent peer timed out")


@pytest.mark.parametrize(
    "request_bytes", [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff" * 5000, b"GET /nothing HTTP/1.0\r\n\r\n"]
)
def test_rubbish_gets_404_and_harms_nothing(server: HealthServer, tmp_path: Path, request_bytes: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(server.path))
        peer.sendall(request_bytes)
        assert peer.recv(100).startswith(b"HTTP/1.0 404")
    server.set_ready()
    assert is_ready(tmp_path, "edge")


def test_a_long_folder_has_its_sockets_elsewhere(tmp_path: Path, registry: CollectorRegistry) -> None:
    folder = tmp_path / ("long" * 40) / "run"
    folder.mkdir(parents=True)
    path = socket_path(folder, "worker", 63)
    assert len(os.fsencode(path)) <= health.SOCKET_PATH_MAX_BYTES
    assert path.parent != folder
    assert path.parent != socket_path(folder.parent, "worker", 63).parent
    server = HealthServer(folder, "worker", 63, registry)
    try:
        assert [one.index for one in collect(folder)] == [63]
        assert path.parent.stat().st_mode & 0o077 == 0
    finally:
        server.close()
        path.parent.rmdir()


def test_merged_metrics_keep_every_sample_apart(tmp_path: Path, server: HealthServer) -> None:
    page = merge_metrics(tmp_path).decode()
    assert 'things_total{kind="a",process="0",role="edge"} 3.0' in page


def _page(value: float) -> str:
    from prometheus_client import generate_latest

    registry = CollectorRegistry()
    Gauge("depth", "How deep.", registry=registry).set(value)
    Histogram("took_seconds", "How long.", buckets=(0.1, 1.0), registry=registry).observe(value)
    return generate_latest(registry).decode()


def test_merge_adds_up_to_what_the_parts_said() -> None:
    parts = [
        ProcessHealth(role="edge", index=0, ready=True, metrics=_page(0.5)),
        ProcessHealth(role="worker", index=0, ready=True, metrics=_page(2.0)),
    ]
    merged = {family.name: family for family in text_string_to_metric_families(merge_pages(parts).decode())}
    assert sorted(merged) == ["depth", "took_seconds"]
    assert {(s.labels["role"], s.value) for s in merged["depth"].samples} == {("edge", 0.5), ("worker", 2.0)}
    buckets = [s for s in merged["took_seconds"].samples if s.name == "took_seconds_bucket" and s.labels["le"] == "1.0"]
    assert {(s.labels["role"], s.value) for s in buckets} == {("edge", 1.0), ("worker", 0.0)}
