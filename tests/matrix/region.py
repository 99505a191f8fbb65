"""A region under fire: senders that insist, roles that are restarted when they end, and the sight of a recovery."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from archive.catalog import CatalogReader
from archive.opening import open_catalog_reader
from region.cluster import Cluster
from region.role import Role
from runtime.errors import SansfilmError
from tests.crash.account import SCOPE
from tests.crash.ledger import Ledger
from tests.crash.modalities import CStoreModality, Modality, StowModality
from tests.matrix.disks import SmallDisk
from tests.region.proxy import Proxy
from tests.waiting import until

RECOVERY_S = 90.0
_TEND_S = 0.1
#: Between two instances of a modality: enough to hit whatever dies, and not so much that the account takes longer.
PACE_S = 0.12
ROUTES = ("cstore", "stow")


@dataclass
class Region:
    """What faults are done to."""

    cluster: Cluster
    ledger: Ledger
    #: A file named as a fault point here kills whoever reaches it.
    faults: Path
    #: Between every role and the object store.
    proxy: Proxy
    #: Those of an edge and of a broker that can be filled, by folder; none where that is not allowed.
    disks: Mapping[Path, SmallDisk]
    #: Roles that are meant to be down now.
    down: set[int] = field(default_factory=set)

    @contextmanager
    def tended(self) -> Iterator[None]:
        """Restart whatever role ends, as an orchestrator does. What it started dies with its thread."""
        stop = threading.Event()

        def tend() -> None:
            while not stop.wait(_TEND_S):
                for role in self.cluster.roles:
                    if not role.is_running and id(role) not in self.down:
                        role.launch()

        thread = threading.Thread(target=tend, name="orchestrator")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @cached_property
    def reader(self) -> CatalogReader:
        """Of the region's catalog; closed by the owner of the region."""
        return open_catalog_reader(self.cluster.settings())

    @contextmanager
    def stopped(self, role: Role) -> Iterator[None]:
        """A role that an operator stops, and starts again."""
        self.down.add(id(role))
        try:
            role.stop()
            yield
        finally:
            self.down.remove(id(role))

    def pids(self) -> dict[str, int]:
        """Processes of the product by ``role/process``, such as ``edge-0/forwarder``."""
        found = {}
        for role in self.cluster.roles:
            if role.is_running:
                found.update({f"{role.folder.name}/{name}": pid for name, pid in _processes(role)})
        return found

    def kill(self, name: str) -> None:
        """SIGKILL to one process."""
        with suppress(ProcessLookupError, KeyError):
            os.kill(self.pids()[name], signal.SIGKILL)

    def recovered(self, what: str) -> None:
        """Wait until something sent by each route after the fault is acknowledged and committed."""
        for role in self.cluster.roles:
            until(lambda role=role: role.is_running, timeout_s=RECOVERY_S, what=f"{role.name} after {what}")  # type: ignore[misc]
        self.ledger.forget_newest()
        for route in ROUTES:
            newest = until(
                lambda route=route: self.ledger.newest().get(route),  # type: ignore[misc]
                timeout_s=RECOVERY_S,
                what=f"an acknowledgement by {route} after {what}",
            )
            uid, digest = newest
            until(
                lambda uid=uid, digest=digest: digest in self.digests(uid),  # type: ignore[misc]
                timeout_s=RECOVERY_S,
                what=f"the commit of what came by {route} after {what}",
            )

    def digests(self, uid: str) -> list[str]:
        """The committed versions of an instance; none while the catalog is away."""
        try:
            return [known.wire_sha256 for known, _ in self.reader.versions(SCOPE, uid)]
        except SansfilmError:
            return []


@contextmanager
def sending(cluster: Cluster, ledger: Ledger) -> Iterator[None]:
    """Modalities at work: two at each edge, in three lanes, and one by STOW-RS."""
    ports = cluster.dicom_ports
    with ExitStack() as stack:
        modalities: list[Modality] = [
            CStoreModality(stream, ports[stream % len(ports)], ledger, pace_s=PACE_S) for stream in (1, 2, 3, 4)
        ]
        modalities.append(StowModality(5, cluster.http_port, ledger, pace_s=PACE_S))
        for modality in modalities:
            stack.callback(modality.close)
        yield
        for modality in modalities:
            modality.stop()


def _processes(role: Role) -> Iterator[tuple[str, int]]:
    """The product's processes at and below a role's."""
    waiting = [role.pid]
    while waiting:
        pid = waiting.pop()
        with suppress(FileNotFoundError, ProcessLookupError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name.startswith("sf-"):
                yield name.removeprefix("sf-").removesuffix("-0"), pid
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
