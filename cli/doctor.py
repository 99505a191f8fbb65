"""`sansfilm doctor`: would `sansfilm up` work here, and how fast is the disk's promise?"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Literal

from rich.markup import escape

from broker.opening import waiting_messages
from cli.folder import is_locked, is_readable_by_others
from cli.output import out, print_json, size_text
from runtime.errors import SansfilmError
from runtime.settings import UpSettings

Level = Literal["ok", "note", "bad"]
_PACKAGES = ("pydicom", "imagecodecs", "numpy", "sqlalchemy", "granian", "starlette")
_MARKS = {"ok": "[green]✓[/]", "note": "[yellow]–[/]", "bad": "[red]✗[/]"}
_SYNCS = 20
_SYNC_BYTES = 512 * 1024
_SLOW_SYNC_MS = 20.0
_LYING_SYNC_MS = 0.02
#: SQLite before this has a WAL-reset corruption with two writing connections; we have one writer.
_SQLITE_MIN = (3, 35, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. `bad` keeps `sansfilm up` from working, a `note` takes something away."""

    what: str
    level: Level
    text: str


def run_doctor(settings: UpSettings, *, as_json: bool) -> int:
    """Look at everything, print it; gives 1 if anything is bad."""
    findings = [finding for check in _CHECKS for finding in check(settings)]
    bad = any(finding.level == "bad" for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            out().print(f"{_MARKS[finding.level]} {finding.what:<13} {escape(finding.text)}", soft_wrap=True)
    return 1 if bad else 0


def _python(_: UpSettings) -> Iterator[Finding]:
    fits = sys.version_info >= (3, 11)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield Finding(what="python", level="ok" if fits else "bad", text=text if fits else f"{text}: 3.11 or newer needed")
    sqlite_fits = sqlite3.sqlite_version_info >= _SQLITE_MIN
    yield Finding(what="sqlite", level="ok" if sqlite_fits else "bad", text=sqlite3.sqlite_version)


def _packages(_: UpSettings) -> Iterator[Finding]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding(what="packages", level="bad", text=f"missing: {', '.join(missing)} (run: make up)")
    else:
        yield Finding(what="packages", level="ok", text=", ".join(found))


def _ports(settings: UpSettings) -> Iterator[Finding]:
    running = is_locked(settings.data_dir)
    for what, port, setting in (
        ("DICOM port", settings.dicom_port, "SANSFILM_DICOM_PORT"),
        ("HTTP port", settings.http_port, "SANSFILM_HTTP_PORT"),
    ):
        problem = _bind_problem(settings.bind_address, port)
        if not problem:
            yield Finding(what=what, level="ok", text=f"{settings.bind_address}:{port} is free")
        elif running:
            yield Finding(what=what, level="ok", text=f"{settings.bind_address}:{port} is in use, as sansfilm runs")
        else:
            yield Finding(what=what, level="bad", text=f"{settings.bind_address}:{port}: {problem}; set {setting}")


def _bind_problem(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return (error.strerror or "cannot be bound").lower()
    return ""


def _folder(settings: UpSettings) -> Iterator[Finding]:
    folder = settings.data_dir.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.is_dir())
    if not os.access(nearest, os.W_OK | os.X_OK) or (folder.exists() and not folder.is_dir()):
        yield Finding(what="data folder", level="bad", text=f"{folder} cannot be written; set SANSFILM_DATA_DIR")
        return
    if folder.is_dir() and is_readable_by_others(folder):
        text = f"{folder} can be read by every user of this machine, and holds patient data: chmod o-rwx"
        yield Finding(what="data folder", level="note", text=text)
    else:
        yield Finding(what="data folder", level="ok", text=f"{folder}{'' if folder.is_dir() else ' (to be made)'}")
    free = shutil.disk_usage(nearest).free
    short = free < settings.disk_reserve_bytes
    reserve = f"; receiving needs more than {size_text(settings.disk_reserve_bytes)} (SANSFILM_DISK_RESERVE_BYTES)"
    yield Finding(
        what="disk", level="note" if short else "ok", text=f"{size_text(free)} free{reserve if short else ''}"
    )
    yield _sync_speed(nearest)


def _sync_speed(folder: Path) -> Finding:
    """How long an acknowledged instance waits for the disk: half a megabyte, appended and synced."""
    path = folder / f".sansfilm-doctor-{os.getpid()}"
    try:
        took_ms = list(_time_syncs(path))
    except OSError as error:
        return Finding(what="fsync", level="bad", text=f"fails: {(error.strerror or type(error).__name__).lower()}")
    finally:
        with suppress(OSError):
            path.unlink()
    middle_ms, worst_ms = median(took_ms), max(took_ms)
    text = f"{middle_ms:.2f} ms for {size_text(_SYNC_BYTES)} (median of {_SYNCS}), {worst_ms:.2f} ms at worst"
    if middle_ms < _LYING_SYNC_MS:
        return Finding(what="fsync", level="note", text=f"{text}: too fast for a disk; is this folder in memory?")
    slow = middle_ms > _SLOW_SYNC_MS
    return Finding(what="fsync", level="note" if slow else "ok", text=text + (": slow, receiving will be too" * slow))


def _time_syncs(path: Path) -> Iterator[float]:
    block = os.urandom(_SYNC_BYTES)
    with path.open("xb", buffering=0) as file:
        for _ in range(_SYNCS):
            started_s = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            yield (time.perf_counter() - started_s) * 1000


def _kafka(settings: UpSettings) -> Iterator[Finding]:
    """Whether the brokers answer, and take our credentials; nothing is said of a log on this machine."""
    if not settings.kafka_bootstrap:
        return
    try:
        waiting = sum(waiting_messages(settings).values())
    except SansfilmError as error:
        yield Finding(what="Kafka", level="bad", text=str(error))
        return
    text = f"{settings.kafka_bootstrap} answers ({settings.kafka_security_protocol}), {waiting} messages wait"
    yield Finding(what="Kafka", level="ok", text=text)


def _extras(settings: UpSettings) -> Iterator[Finding]:
    viewer = settings.viewer_dir / "index.html"
    if viewer.is_file():
        marker = settings.viewer_dir / "VERSION"
        release = marker.read_text().strip() if marker.is_file() else "of unknown version"
        yield Finding(what="viewer", level="ok", text=f"OHIF {release}")
    else:
        yield Finding(what="viewer", level="note", text="not installed: studies cannot be opened (make viewer)")
    tool = shutil.which("storescu")
    text = tool or "not found: sansfilm send works without it (apt-get install dcmtk)"
    yield Finding(what="DCMTK", level="ok" if tool else "note", text=text)


_CHECKS: tuple[Callable[[UpSettings], Iterator[Finding]], ...] = (_python, _packages, _ports, _folder, _kafka, _extras)
