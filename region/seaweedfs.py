"""SeaweedFS as the S3 of a region on one machine: ``weed mini`` on loopback, with identities.

Who may do what (``-s3.config``): the *worker* everything; the *edge* puts below its tenant's segments, reads there what
a PUT without an answer has left, and neither lists nor deletes. What SeaweedFS cannot express: that the edge may not
overwrite (it knows no policy condition on ``If-None-Match``). Against that stand the create-only PUTs of our own
client, keys that nobody repeats, and the catalog, which has the digest of everything it names.

Only the S3 port asks for credentials. Filer, master and volume server, which it listens with on loopback too, do not:
this is for tests, benchmarks and a laptop.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from prometheus_client.parser import text_string_to_metric_families

from region.ports import free_ports
from runtime.lifecycle import die_with_parent

READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
_POLL_S = 0.02
_METRICS_TIMEOUT_S = 10.0
#: An object in each bucket, by which the server shows that it is ready.
_PROBE = "probe"
_ROLES = ("s3", "filer", "master", "volume", "admin")
_FLAGS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-master.telemetry=false",
    "-admin.ui=false",
    "-webdav=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Credentials of one identity of the server; they protect nothing but a test."""

    access_key_id: str
    secret_access_key: str


WORKER: Final = Identity(access_key_id="worker", secret_access_key="secret-of-the-worker")
EDGE: Final = Identity(access_key_id="edge", secret_access_key="secret-of-the-edge")


class SeaweedS3:
    """A server on free loopback ports, in a folder it is given; up in about a second. A context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        buckets: Sequence[str] = ("archive",),
        prefix: str = "site",
        tenant: str = "default",
    ) -> None:
        """`buckets` are made at the start; the archive, into which the edge puts, lies in the first, under `prefix`."""
        self._folder = folder
        self._buckets = tuple(buckets)
        self._prefix = f"{prefix}/" if prefix else ""
        self._tenant = tenant
        self._ports = free_ports(2 * len(_ROLES) + 1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        """The port of the S3 protocol."""
        return self._ports[0]

    @property
    def endpoint(self) -> str:
        """What `s3_endpoint` is to be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ports(self) -> Sequence[int]:
        """Every port that it listens on."""
        return tuple(self._ports)

    def requests(self) -> Mapping[str, int]:
        """S3 requests answered since its start, by method, as the server itself counts them; refused ones too."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[-1]}/metrics", timeout=_METRICS_TIMEOUT_S) as page:
            families = text_string_to_metric_families(page.read().decode())
        counted = Counter[str]()
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == "SeaweedFS_s3_request_total":
                counted[sample.labels["type"]] += int(sample.value)
        return counted

    def start(self) -> None:
        """Start on the same data and ports as before, and wait until it answers.

        Raises:
            RuntimeError: it did not come up in time; the message says where its log is.
        """
        assert self._process is None, "it runs"
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        config = self._folder / "identities.json"
        config.write_text(json.dumps(self._identities()))
        parent = os.getpid()
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_weed(), f"-logdir={self._folder}", "mini", f"-dir={self._folder / 'data'}", *_FLAGS]
                + [f"-{role}.port={self._ports[number]}" for number, role in enumerate(_ROLES)]
                + [f"-{role}.port.grpc={self._ports[len(_ROLES) + number]}" for number, role in enumerate(_ROLES)]
                + [f"-metricsPort={self._ports[-1]}", f"-s3.config={config}", f"-bucket={','.join(self._buckets)}"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: die_with_parent(parent),
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop in order, or kill what does not stop; may be called again."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._remove_sockets()

    def kill(self) -> None:
        """SIGKILL; `start` brings it up again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self._remove_sockets()

    def freeze(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> SeaweedS3:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _identities(self) -> dict[str, object]:
        own = f"arn:aws:s3:::{self._buckets[0]}/{self._prefix}segments/{self._tenant}/*"
        puts = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"],
                    "Resource": [own],
                }
            ],
        }
        return {
            "identities": [
                {"name": "worker", "credentials": [_credentials(WORKER)], "actions": ["Admin"]},
                {"name": "edge", "credentials": [_credentials(EDGE)], "policyNames": ["edge-puts"]},
            ],
            "policies": [{"name": "edge-puts", "content": json.dumps(puts)}],
        }

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        ends_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < ends_s and self._process.poll() is None:
            if all(map(self._is_ready, self._buckets)):
                return
            time.sleep(_POLL_S)
        self._process.kill()
        self._process.wait()
        self._process = None
        raise RuntimeError(f"SeaweedFS did not answer within {READY_TIMEOUT_S:g} s: see weed.log in {self._folder}")

    def _is_ready(self, bucket: str) -> bool:
        """Whether the bucket is there, gives what it held before a restart, and takes something."""
        store = S3Store(
            bucket,
            config={"endpoint": self.endpoint, "region": "us-east-1", "virtual_hosted_style_request": False},
            client_options={"allow_http": True, "timeout": timedelta(seconds=5)},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
            access_key_id=WORKER.access_key_id,
            secret_access_key=WORKER.secret_access_key,
        )
        try:
            with suppress(FileNotFoundError):
                obstore.get(store, _PROBE).bytes()
            obstore.put(store, _PROBE, b"ready")
        except (BaseError, FileNotFoundError):
            return False
        return True

    def _remove_sockets(self) -> None:
        for port in self._ports:
            for path in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def _credentials(identity: Identity) -> dict[str, str]:
    return {"accessKey": identity.access_key_id, "secretKey": identity.secret_access_key}


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("there is no weed: install requirements-dev.txt")
    return found
