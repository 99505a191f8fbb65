"""``python -m region up|demo``: a region on this machine, and an exam sent to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from region.cluster import Cluster, Shape

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
_console = Console(highlight=False)
_TOLD: Final = "region.json"
Folder = Annotated[Path, typer.Option(help="Folder of everything the region keeps.")]


@app.command()
def up(
    folder: Folder = Path("data-region"),
    brokers: Annotated[int, typer.Option(min=1, max=9, help="Kafka brokers.")] = 3,
    edges: Annotated[int, typer.Option(min=1, max=9, help="Edges.")] = 2,
    ack_mode: Annotated[str, typer.Option(help="spool: edges answer from their own disks; kafka: the log answers.")] = (
        "spool"
    ),
    http_port: Annotated[int, typer.Option(help="Port of the pages and DICOMweb.")] = 8080,
    dicom_port: Annotated[int, typer.Option(help="Port of the first edge; the others follow.")] = 11112,
) -> None:
    """Start Kafka brokers, PostgreSQL, S3, two edges, a worker a lane, a keeper and web; Ctrl-C stops them all."""
    shape = Shape(
        brokers=brokers,
        edges=edges,
        ack_mode=ack_mode,
        http_port=http_port,
        dicom_ports=[dicom_port + number for number in range(edges)],
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Cluster(folder.absolute(), shape, notice=lambda text: _console.print(f"[dim]{text}[/]")) as cluster:
        told = folder / _TOLD
        told.touch(mode=0o600)
        told.write_text(json.dumps({"web": dict(cluster.web.settings), "dicom_ports": cluster.dicom_ports}))
        _console.print(_panel(cluster))
        stop.wait()
        _console.print("[dim]stopping ...[/]")
        told.unlink()


@app.command()
def demo(folder: Folder = Path("data-region")) -> None:
    """In a second terminal: send a synthetic brain MR to the first edge, and print the link that opens it."""
    try:
        told = json.loads((folder / _TOLD).read_text())
    except FileNotFoundError:
        _console.print("no region runs here: start one with make cluster-up")
        raise typer.Exit(2) from None
    environment = {**os.environ, **told["web"], "SANSFILM_DICOM_PORT": str(told["dicom_ports"][0])}
    command = [sys.executable, "-c", "from cli.main import main; main()", "demo"]
    raise typer.Exit(subprocess.run(command, env=environment).returncode)


def _panel(cluster: Cluster) -> Panel:
    table = Table.grid(padding=(0, 2))
    rows = {
        "study list": f"http://127.0.0.1:{cluster.http_port}/",
        "edges": ", ".join(f"SANSFILM on 127.0.0.1:{port}" for port in cluster.dicom_ports),
        "send a file": f"storescu -aec SANSFILM 127.0.0.1 {cluster.dicom_ports[0]} FILE.dcm",
        "or": "make cluster-demo",
        "Kafka": cluster.kafka.bootstrap,
        "PostgreSQL": f"127.0.0.1:{cluster.postgres.port}",
        "S3": cluster.s3.endpoint,
        "folder": str(cluster.folder),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    return Panel(table, title="a region is ready", subtitle="Ctrl-C stops", expand=False, border_style="green")


if __name__ == "__main__":
    app()
