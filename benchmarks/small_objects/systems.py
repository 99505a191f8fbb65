"""What the files are sent to: a region on S3, the same region on a folder, and all roles on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from archive.local_store import LocalSegmentStore
from archive.opening import open_store
from archive.segment_store import SegmentStore
from benchmarks.receivers import sansfilm, sansfilm_found
from benchmarks.replay_mri.devices import LANE_RULES
from region.cluster import Cluster, Shape, WorkerShape
from schemas.message import Lane

_SETTINGS = {"SANSFILM_LANE_RULES": LANE_RULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A running system, ready when given."""

    name: str
    port: int
    #: Instances that QIDO-RS finds.
    found: Callable[[], int]
    #: Its archive, as a stranger reads it.
    store: SegmentStore
    #: PUT requests that its S3 server has answered; None without one.
    puts: Callable[[], int] | None = None


@contextmanager
def on_s3(folder: Path, transcode: str) -> Iterator[System]:
    """A region whose archive is in an object store."""
    with (
        _region(folder, {"SANSFILM_TRANSCODE": transcode}) as cluster,
        closing(open_store(cluster.settings())) as store,
    ):
        yield System(
            name="region, S3",
            port=cluster.dicom_ports[0],
            found=lambda: sansfilm_found(cluster.http_port),
            store=store,
            puts=lambda: cluster.s3.requests().get("PUT", 0),
        )


@contextmanager
def on_folder(folder: Path, transcode: str) -> Iterator[System]:
    """The same region with its archive in a folder that its roles share, as they would a file system."""
    archive = folder / "archive"
    archive.mkdir(parents=True)
    for role in ("edge-0", "worker-0", "keeper", "web"):
        (folder / role).mkdir()
        (folder / role / "archive").symlink_to(archive)
    settings = {"SANSFILM_TRANSCODE": transcode, "SANSFILM_STORE_URL": ""}
    with _region(folder, settings) as cluster, closing(LocalSegmentStore(archive)) as store:
        yield System(
            name="region, folder",
            port=cluster.dicom_ports[0],
            found=lambda: sansfilm_found(cluster.http_port),
            store=store,
        )


@contextmanager
def embedded(folder: Path, transcode: str) -> Iterator[System]:
    """`sansfilm up`: local log, SQLite, folder."""
    with sansfilm(folder, transcode=transcode, edge_only=False, **_SETTINGS) as receiver:
        assert receiver.found is not None
        with closing(LocalSegmentStore(folder / "archive")) as store:
            yield System(name="sansfilm up", port=receiver.port, found=receiver.found, store=store)


@contextmanager
def _region(folder: Path, settings: dict[str, str]) -> Iterator[Cluster]:
    """One broker, one edge, one worker for all lanes."""
    shape = Shape(
        brokers=1, partitions=12, edges=1, workers=(WorkerShape(lanes=tuple(Lane)),), settings={**_SETTINGS, **settings}
    )
    with Cluster(folder, shape) as cluster:
        yield cluster
