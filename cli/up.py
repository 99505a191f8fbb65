"""`sansfilm up`: all roles on one machine, supervised."""

from __future__ import annotations

import gc
import importlib
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing

from rich.markup import escape
from rich.panel import Panel

from cli.folder import DataFolder
from cli.output import LastingConsole, fields, size_text
from cli.supervisor import Bounds, ChildSpec, Supervisor
from runtime.logs import configure_logs, get_logger
from runtime.settings import UpSettings

#: What the children need, imported once here before they are forked.
_PRELOADED = ("cli.roles", "ingest.edge", "ingest.stow", "workers.worker", "dicomweb.serve")
_TERMINAL = LastingConsole(highlight=False)
#: Parts of the one shutdown deadline; what is left is for the supervisor itself.
_WORKER_SHARE, _WEB_SHARE = 0.4, 0.2


def run_up(settings: UpSettings) -> int:
    """Run until a signal; gives the exit code.

    Raises:
        Misconfigured: the folder or an address cannot be used; nothing was started.
    """
    # One thread a process in the linear-algebra library: the roles have threads of their own, and forks stay simple.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ExitStack() as stack:
        folder = stack.enter_context(DataFolder(settings.data_dir))
        from dicomweb.serve import bind_http
        from ingest.edge import bind_dicom

        dicom = stack.enter_context(closing(bind_dicom(settings)))
        http = stack.enter_context(closing(bind_http(settings)))
        _say(f"[dim]starting sansfilm on {escape(str(folder.path))} ...[/]")
        configure_logs(role="supervisor", level=settings.log_level, log_format=settings.log_format)
        for module in _PRELOADED:
            importlib.import_module(module)
        gc.freeze()
        supervisor = Supervisor(
            child_specs(settings, dicom, http),
            run_dir=settings.run_dir,
            logs_dir=folder.path / "logs",
            bounds=Bounds(
                ready_timeout_s=settings.ready_timeout_s,
                shutdown_timeout_s=settings.shutdown_timeout_s,
                restart_wait_max_s=settings.restart_wait_max_s,
                log_file_max_bytes=settings.role_log_max_bytes,
            ),
            on_ready=lambda: _say(panel(settings, folder)),
            on_notice=_notice,
        )
        code = supervisor.run()
        _say("[dim]stopped[/]" if code == 0 else f"[dim]stopped with exit code {code}[/]")
        return code


def child_specs(settings: UpSettings, dicom: socket.socket, http: socket.socket) -> Sequence[ChildSpec]:
    """Edges stop first, then forwarder, worker and web: what an edge acknowledged last is still committed and seen."""
    from cli.edges import receiving_specs
    from cli.roles import run_web_role, run_worker_role

    worker, web = (_within(settings, share) for share in (_WORKER_SHARE, _WEB_SHARE))
    return [
        *receiving_specs(settings, dicom),
        ChildSpec(role="worker", index=0, stop_stage=2, run=lambda: run_worker_role(worker, supervised=True)),
        ChildSpec(role="web", index=0, stop_stage=3, run=lambda: run_web_role(web, http, supervised=True)),
    ]


def panel(settings: UpSettings, folder: DataFolder) -> Panel:
    """What someone needs to send the first exam."""
    from cli.demo import local_host

    host = local_host(settings.bind_address)
    shown = f"[{host}]" if ":" in host else host
    lines = {
        "study list": f"http://{shown}:{settings.http_port}/",
        "DICOMweb": f"http://{shown}:{settings.http_port}/dicom-web",
        "DICOM": f"{settings.ae_title} on {shown}:{settings.dicom_port}",
        "send a file": f"storescu -aec {settings.ae_title} {host} {settings.dicom_port} FILE.dcm",
        "or": "sansfilm demo   (make demo)",
        "data folder": f"{folder.path}   ({size_text(folder.free_bytes())} free)",
        "logs": str(folder.path / "logs"),
        "viewer": "" if (settings.viewer_dir / "index.html").is_file() else "not installed (make viewer)",
        "receiving": "" if folder.free_bytes() >= settings.disk_reserve_bytes else _paused(settings),
        "protection": "none: --insecure-demo" if settings.insecure_demo else "",
    }
    return Panel(fields(lines), title="sansfilm is ready", subtitle="Ctrl-C stops", expand=False, border_style="green")


def _within(settings: UpSettings, share: float) -> UpSettings:
    return settings.model_copy(update={"shutdown_timeout_s": settings.shutdown_timeout_s * share})


def _paused(settings: UpSettings) -> str:
    reserve = size_text(settings.disk_reserve_bytes)
    return f"paused: less than SANSFILM_DISK_RESERVE_BYTES ({reserve}) is free; what was acknowledged is committed"


def _notice(name: str, text: str) -> None:
    """A sentence of a child for whoever watches the terminal."""
    _say(f"{escape(name):>10} │ {escape(text)}")


def _say(what: Panel | str) -> None:
    """Print. A terminal that went away, or that nobody reads, must not stop the system."""
    try:
        _TERMINAL.say(what, soft_wrap=isinstance(what, str))
    except OSError:
        get_logger().debug("terminal_gone")
