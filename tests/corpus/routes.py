"""The three ways of sending: DCMTK's dcmsend, `sansfilm send`, STOW-RS. Each says what became of each file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from cli.association import Peer
from cli.files import Sendable, examine
from cli.sender import Sender
from tests.corpus.offered import Offered
from tests.corpus.system import Running

#: Each route, and the one by which its files are sent again.
ROUTES = {"dcmsend": "stow", "send": "dcmsend", "stow": "send"}
ACKNOWLEDGED = "acknowledged"
NOT_SENDABLE = "not_sendable"
_BOUNDARY = "corpus-boundary"
Answers = Mapping[str, str]
"""By name of file: ACKNOWLEDGED, NOT_SENDABLE or ``refused:<status>``."""


def send(route: str, system: Running, tenant: str, files: Sequence[Offered], folder: Path) -> Answers:
    """Send `files` to `tenant` by `route`; `folder` is for what a tool writes."""
    if route == "stow":
        return anyio.run(_stow, system, tenant, files)
    by_path = {str(one.path): one.name for one in files}
    sent = _dcmsend(system.port(tenant), files, folder) if route == "dcmsend" else _send(system.port(tenant), files)
    return {name: sent.get(path, NOT_SENDABLE) for path, name in by_path.items()}


def _dcmsend(port: int, files: Sequence[Offered], folder: Path) -> Mapping[str, str]:
    """Its report names every file that it could make something of (--no-uid-checks, --no-halt)."""
    report = folder / "report.txt"
    report.unlink(missing_ok=True)
    command = ["dcmsend", "-q", "-nh", "-nuc", "-pdu", "131072", "+crf", str(report), "127.0.0.1", str(port)]
    subprocess.run(
        [*command, *(str(one.path) for one in files)],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        timeout=120,
        check=False,  # it fails if any file does
    )
    entries = report.read_text().split("\n\n") if report.exists() else []
    fields = [dict(line.split(":", 1) for line in one.splitlines() if ":" in line) for one in entries]
    said = [{key.strip(): value.strip() for key, value in one.items()} for one in fields]
    return {one["Filename"]: _dimse(one["DIMSE Status"]) for one in said if "Filename" in one}


def _dimse(status: str) -> str:
    if not status.startswith("0x"):
        return NOT_SENDABLE
    number = int(status.split()[0], 16)
    return f"refused:{number:04X}" if number else ACKNOWLEDGED


def _send(port: int, files: Sequence[Offered]) -> Mapping[str, str]:
    found = [one for file in files if isinstance(one := examine(file.path), Sendable)]
    summary = Sender(Peer(called_ae="SANSFILM", host="127.0.0.1", port=port), associations=2).send(found)
    return {
        str(one.file.path): NOT_SENDABLE if one.status is None else _dimse(f"{one.status:#06x}")
        for one in summary.outcomes
    }


async def _stow(system: Running, tenant: str, files: Sequence[Offered]) -> Answers:
    content_type = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    answers = {}
    async with system.client(system.stow(tenant)) as client:
        for one in files:
            body = head + one.path.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
            answer = await client.post("/dicom-web/studies", content=body, headers={"content-type": content_type})
            answers[one.name] = ACKNOWLEDGED if answer.status_code == 200 else f"refused:{answer.status_code}"
    return answers
