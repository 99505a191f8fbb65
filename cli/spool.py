"""`sansfilm spool`: what an edge has acknowledged and not shipped yet; and a disk of an edge that is no more."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

spool = typer.Typer(no_args_is_help=True, help="An edge's spool: ship what it holds.")


@spool.command()
def ship(
    folder: Annotated[Path, typer.Argument(help="The edge's data folder, or a copy of its disk.", show_default=False)],
    timeout_s: Annotated[float, typer.Option(min=1, help="Longest time, in seconds.")] = 86_400.0,
) -> None:
    """Ship everything in an edge's spool to the log, then end. No edge may run on the folder.

    Nothing is lost by interrupting it, and nothing doubled by repeating it. Exit code 1 if something stays behind.

    [dim]Example:[/]

      SANSFILM_KAFKA_BOOTSTRAP=kafka:9092 sansfilm spool ship /mnt/rescued/data
    """
    from broker.opening import check_region, local_usage
    from cli.output import err, out
    from cli.send import progress_bar
    from ingest.shipping import run_forwarder
    from runtime.errors import Misconfigured
    from runtime.settings import EdgeSettings, load_settings

    if not (folder / "log").is_dir():
        raise Misconfigured(f"{folder} is no data folder of an edge: it has no log/")
    settings = load_settings(EdgeSettings, data_dir=folder, shutdown_timeout_s=timeout_s)
    if settings.kafka_bootstrap:
        check_region(settings)
    total = sum(local_usage(settings).uncommitted_messages.values())
    stop, done = threading.Event(), threading.Event()
    stop.set()  # ship what is there, then end
    with progress_bar() as progress:
        task = progress.add_task("shipping", total=total)

        def watch() -> None:
            while not done.wait(0.5):
                progress.update(task, completed=total - sum(local_usage(settings).uncommitted_messages.values()))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            left = run_forwarder(settings, stop, lambda: None)
        finally:
            done.set()
            watcher.join()
        progress.update(task, completed=total - left)
    out().print(f"{total - left:,} of {total:,} messages shipped")
    if left:
        err().print(f"sansfilm: {left:,} messages are still in {folder}: is the log reachable? Run it again")
        raise typer.Exit(1)
