"""`sansfilm edge`: the receivers of one machine, and the forwarder of their spool, supervised."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing

from broker.opening import is_spooling, local_usage
from cli.folder import make_private
from cli.output import LastingConsole, err
from cli.supervisor import Bounds, ChildSpec, Supervisor
from runtime.logs import configure_logs
from runtime.settings import EdgeGroupSettings, EdgeSettings

_TERMINAL = LastingConsole(highlight=False)
#: Parts of the one shutdown deadline: finish what is being received, then ship.
_EDGE_SHARE, _FORWARDER_SHARE = 0.3, 0.6


def run_edges(settings: EdgeGroupSettings) -> int:
    """Receive until a signal; gives the exit code: 1 if messages stay behind in the spool.

    Raises:
        Misconfigured: the address cannot be used; nothing was started.
    """
    from ingest.edge import bind_dicom

    configure_logs(role="supervisor", level=settings.log_level, log_format=settings.log_format)
    make_private(settings.data_dir)
    with closing(bind_dicom(settings)) as listener:
        supervisor = Supervisor(
            receiving_specs(settings, listener),
            run_dir=settings.run_dir,
            logs_dir=settings.data_dir / "logs",
            bounds=Bounds(
                ready_timeout_s=settings.ready_timeout_s,
                shutdown_timeout_s=settings.shutdown_timeout_s,
                restart_wait_max_s=settings.restart_wait_max_s,
                log_file_max_bytes=settings.role_log_max_bytes,
            ),
            on_ready=lambda: _say(
                f"edge is ready: {settings.ae_title} on {settings.bind_address}:{settings.dicom_port}"
            ),
            on_notice=lambda name, text: _say(f"{name} │ {text}"),
        )
        code = supervisor.run()
    left = sum(local_usage(settings).uncommitted_messages.values()) if is_spooling(settings) else 0
    if left:
        err().print(
            f"sansfilm edge: {left} acknowledged messages are still in the spool {settings.data_dir}: keep this disk; "
            "start the edge again, or ship them with sansfilm spool ship",
            markup=False,
            soft_wrap=True,
        )
    return code or int(left > 0)


def receiving_specs(settings: EdgeSettings, listener: socket.socket, *, stop_stage: int = 0) -> Sequence[ChildSpec]:
    """The processes of the edge role. The forwarder stops after the edges: it ships what they acknowledged last."""
    from cli.roles import run_edge_role, run_forwarder_role

    edge, forwarder = (_within(settings, share) for share in (_EDGE_SHARE, _FORWARDER_SHARE))
    specs = [
        ChildSpec(
            role="edge",
            index=index,
            stop_stage=stop_stage,
            run=lambda index=index: run_edge_role(edge, listener, index, supervised=True),  # type: ignore[misc]
        )
        for index in range(settings.edge_processes)
    ]
    if is_spooling(settings):
        ship = ChildSpec(
            role="forwarder",
            index=0,
            stop_stage=stop_stage + 1,
            run=lambda: run_forwarder_role(forwarder, supervised=True),
        )
        specs.append(ship)
    return specs


def _within(settings: EdgeSettings, share: float) -> EdgeSettings:
    return settings.model_copy(update={"shutdown_timeout_s": settings.shutdown_timeout_s * share})


def _say(text: str) -> None:
    """Print; a terminal that went away must not stop the edge."""
    try:
        _TERMINAL.say(text, soft_wrap=True)
    except OSError:
        return
