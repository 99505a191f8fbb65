"""Several edge processes on one inherited socket, and the death of one of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from runtime.settings import EdgeSettings
from tests.datasets import MR_IMAGE_STORAGE, PLANTED, dataset_bytes, mr_dataset
from tests.ingest.conftest import received
from tests.ingest.peers import EXPLICIT_LE, Peer, associate_rq

MR = (1, MR_IMAGE_STORAGE, (EXPLICIT_LE,))
PROGRAM = """
import socket, sys
from runtime.lifecycle import stop_on_signals
from runtime.settings import EdgeSettings
from ingest.edge import run_edge
from runtime.logs import configure_logs
configure_logs(role="edge", level="debug")
stop = stop_on_signals()
settings = EdgeSettings(data_dir=sys.argv[1], disk_reserve_bytes=0)
run_edge(settings, socket.socket(fileno=int(sys.argv[2])), stop, lambda: print("ready", flush=True))
"""


@contextlib.contextmanager
def edge_processes(
    data_dir: Path, listener: socket.socket, count: int, errors: IO[str]
) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(data_dir), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("SANSFILM_")},
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_processes_share_one_socket(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
        (tmp_path / "errors.txt").open("w") as errors,
        edge_processes(tmp_path / "data", listener, 2, errors) as processes,
        contextlib.ExitStack() as peers,
    ):
        port = listener.getsockname()[1]
        acknowledged = 0
        open_peers = [peers.enter_context(Peer(port)) for _ in range(8)]
        for number, peer in enumerate(open_peers, 1):
            assert peer.associate(MR)
            dataset = mr_dataset(number, rows=16, columns=16)
            assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0
            acknowledged += 1
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].wait()
        for number in range(20, 24):
            peer = peers.enter_context(Peer(port))
            peer.send(associate_rq(MR))
            assert peer.read_pdu()[0] == 0x02
            dataset = mr_dataset(number, rows=16, columns=16)
            assert peer.store(MR_IMAGE_STORAGE, dataset.SOPInstanceUID, dataset_bytes(dataset)).status == 0
            acknowledged += 1
        processes[1].send_signal(signal.SIGTERM)
        assert processes[1].wait(30) == 0
    settings = EdgeSettings(data_dir=tmp_path / "data")
    messages = received(settings, acknowledged)
    assert len({message.attributes.sop_instance_uid for message in messages}) == acknowledged
    events = [json.loads(line) for line in (tmp_path / "errors.txt").read_text().splitlines()]
    assert [event["event"] for event in events].count("association_accepted") == acknowledged
    assert not any(planted in json.dumps(events) for planted in PLANTED.values())
