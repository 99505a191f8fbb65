"""The S3 server of tests: closed to strangers, gone with its parent, the same after a restart."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import obstore
import pytest

from region.seaweedfs import SeaweedS3
from tests.region.s3 import access_to
from tests.waiting import until


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/archive?list-type=2"),
        ("GET", "/archive/x"),
        ("PUT", "/archive/x"),
        ("DELETE", "/archive/x"),
    ],
)
def test_a_request_without_credentials_is_refused(seaweed: SeaweedS3, method: str, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", seaweed.port, timeout=10)
    connection.request(method, path, body=b"x" if method == "PUT" else None)
    answer = connection.getresponse()
    assert (answer.status, b"AccessDenied" in answer.read()) == (403, True)
    connection.close()


def test_it_counts_what_it_was_asked(tmp_path: Path) -> None:
    with SeaweedS3(tmp_path) as server:
        before, access = server.requests(), access_to(server.port, "a")
        for number in range(3):
            obstore.put(access.writing(), f"x{number}", b"content", use_multipart=False)
        obstore.get(access.reading(), "x0").bytes()
        after = server.requests()
    assert {method: after[method] - before[method] for method in ("PUT", "GET")} == {"PUT": 3, "GET": 1}


def test_what_was_put_is_there_after_a_kill_and_after_a_stop(tmp_path: Path) -> None:
    with SeaweedS3(tmp_path, buckets=("archive", "second")) as server:
        access, second = access_to(server.port, "a"), access_to(server.port, "a", bucket="second")
        for number, end in enumerate((server.kill, server.stop)):
            obstore.put(access.writing(), f"x{number}", b"content")
            obstore.put(second.writing(), f"x{number}", b"second")
            end()
            server.start()
            assert obstore.get(access.reading(), f"x{number}").bytes() == b"content"
            assert obstore.get(second.reading(), f"x{number}").bytes() == b"second"
    server.stop()


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from region.seaweedfs import SeaweedS3\n"
        "server = SeaweedS3(Path(sys.argv[1])); server.start(); print(server.port, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert _listens(port)
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not _listens(port), what="the server's end")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
