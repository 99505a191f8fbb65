"""What is replayed against: `sansfilm up` in a folder of its own, or a system that runs already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import receivers
from benchmarks.processes import named, tree
from benchmarks.replay_mri.devices import LANE_RULES
from cli.association import Peer
from runtime.errors import Misconfigured

#: More than the devices of a whole profile have.
_ASSOCIATIONS_MAX = 512
#: Full disks are another test: receiving stops before this one is.
_DISK_RESERVE_BYTES = 4 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running system, ready when given."""

    name: str
    host: str
    port: int
    #: Root of the readers, like http://127.0.0.1:8080.
    web: str
    #: Addresses of /metrics pages; together they cover every process once.
    pages: Sequence[str]
    #: Processes whose CPU and writes are counted, by role.
    pids: Mapping[str, Sequence[int]]
    settings: Mapping[str, object]


@contextmanager
def embedded(
    folder: Path, *, transcode: str, inline_max_bytes: int | None = None, **environment: str
) -> Iterator[Target]:
    """`sansfilm up` on free ports."""
    settings = {
        "SANSFILM_LANE_RULES": LANE_RULES,
        "SANSFILM_ASSOCIATIONS_MAX": str(_ASSOCIATIONS_MAX),
        "SANSFILM_ASSOCIATIONS_PER_CALLER_MAX": str(_ASSOCIATIONS_MAX),
        "SANSFILM_DISK_RESERVE_BYTES": str(_DISK_RESERVE_BYTES),
        **({} if inline_max_bytes is None else {"SANSFILM_INLINE_MAX_BYTES": str(inline_max_bytes)}),
        **environment,
    }
    with receivers.sansfilm(folder, transcode=transcode, edge_only=False, **settings) as receiver:
        web = f"http://127.0.0.1:{_http_port(receiver.pid)}"
        yield Target(
            name=receiver.name,
            host="127.0.0.1",
            port=receiver.port,
            web=web,
            pages=[f"{web}/metrics"],
            pids={role: _children(receiver.pid, f"sf-{role}-") for role in ("edge", "worker", "web")},
            settings=receiver.settings,
        )


def running(address: str, *, web: str, pages: Sequence[str], pids: Sequence[str]) -> Target:
    """A system at `address` (HOST:PORT) with its readers at `web`; `pids` are ROLE=PID.

    Raises:
        Misconfigured: one of them has another form.
    """
    peer = Peer.parse(address)
    by_role: dict[str, list[int]] = {}
    for one in pids:
        role, _, pid = one.partition("=")
        if not role or not pid.isdigit():
            raise Misconfigured(f"{one!r} is not of the form ROLE=PID")
        by_role.setdefault(role, []).append(int(pid))
    return Target(
        name=str(peer),
        host=peer.host,
        port=peer.port,
        web=web.rstrip("/"),
        pages=pages or [f"{web.rstrip('/')}/metrics"],
        pids=by_role,
        settings={},
    )


def _children(root_pid: int, prefix: str) -> list[int]:
    first = named(root_pid, f"{prefix}0")
    others = [
        pid for pid in tree(root_pid) if pid != first and Path(f"/proc/{pid}/comm").read_text().startswith(prefix)
    ]
    return [first, *others]


def _http_port(pid: int) -> int:
    """As its environment says: the receivers of the other benchmarks tell their DICOM port alone."""
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"SANSFILM_HTTP_PORT":
            return int(value)
    raise LookupError("SANSFILM_HTTP_PORT")
