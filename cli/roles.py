"""One role as a process: logs, signals, health, then its room's own loop. The same code runs alone and under `up`."""

from __future__ import annotations

import faulthandler
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing

from cli.folder import make_private
from runtime.clock import SystemClock
from runtime.errors import Fatal, Misconfigured, SansfilmError
from runtime.health import HealthServer, merge_metrics
from runtime.lifecycle import name_process, stop_on_signals
from runtime.logs import configure_logs, get_logger
from runtime.settings import CommonSettings, EdgeSettings, KeeperSettings, WebSettings, WorkerSettings

#: A role's own loop: runs until `stop` is set, calls `ready` once it takes work.
Body = Callable[[threading.Event, Callable[[], None]], None]


def run_edge_role(settings: EdgeSettings, listener: socket.socket, index: int = 0, *, supervised: bool = False) -> int:
    """Receive on `listener` until told to stop; gives the exit code."""

    def body(stop: threading.Event, ready: Callable[[], None]) -> None:
        from ingest.edge import run_edge

        run_edge(settings, listener, stop, ready)

    return run_role("edge", index, settings, body, supervised=supervised)


def run_forwarder_role(settings: EdgeSettings, *, supervised: bool = False) -> int:
    """Ship the spool until told to stop; gives the exit code."""

    def body(stop: threading.Event, ready: Callable[[], None]) -> None:
        from ingest.shipping import run_forwarder

        run_forwarder(settings, stop, ready)

    return run_role("forwarder", 0, settings, body, supervised=supervised)


def run_worker_role(settings: WorkerSettings, index: int = 0, *, supervised: bool = False) -> int:
    """Take from the log and commit until told to stop; gives the exit code."""

    def body(stop: threading.Event, ready: Callable[[], None]) -> None:
        from workers.worker import run_worker

        run_worker(settings, stop, ready)

    return run_role("worker", index, settings, body, supervised=supervised)


def run_keeper_role(settings: KeeperSettings, *, supervised: bool = False) -> int:
    """Publish events, collect, compact and trim until told to stop; gives the exit code."""

    def body(stop: threading.Event, ready: Callable[[], None]) -> None:
        from keeper.keeper import run_keeper

        run_keeper(settings, stop, ready)

    return run_role("keeper", 0, settings, body, supervised=supervised)


def run_web_role(settings: WebSettings, listener: socket.socket, *, supervised: bool = False) -> int:
    """Answer HTTP on `listener` until told to stop: pages, DICOMweb, and STOW-RS into the log; gives the exit code."""

    def body(stop: threading.Event, ready: Callable[[], None]) -> None:
        from dicomweb.serve import run_web
        from ingest.opening import opened_intake
        from ingest.stow import stow_routes

        with opened_intake(settings, SystemClock(), role="web") as intake:
            run_web(
                settings,
                listener,
                stop,
                ready,
                stow_routes(intake, settings),
                is_ready=lambda: not stop.is_set(),
                collect_metrics=lambda: merge_metrics(settings.run_dir),
            )

    return run_role("web", 0, settings, body, supervised=supervised)


def run_web_alone(settings: WebSettings) -> int:
    """`sansfilm web`: bind, then answer."""
    from dicomweb.serve import bind_http

    with closing(bind_http(settings)) as listener:
        return run_web_role(settings, listener)


def run_role(name: str, index: int, settings: CommonSettings, body: Body, *, supervised: bool) -> int:
    """Run `body` as this process's one job.

    Exit codes: 0 stopped when asked to, 1 failed, 2 misconfigured. What is logged of a foreign error is its type and
    where it arose, never its message: libraries quote values of data sets.
    """
    configure_logs(role=f"{name}-{index}", level=settings.log_level, log_format=settings.log_format)
    name_process(f"sf-{name}-{index}")
    faulthandler.enable()
    threading.excepthook = _log_thread_failure
    stop = stop_on_signals(ignore_interrupt=supervised)
    log = get_logger()
    log.info("settings_read", **settings.model_dump(mode="json"))  # a secret would be masked by its type
    try:
        make_private(settings.data_dir)
        health = HealthServer(settings.run_dir, name, index)
        try:
            body(stop, health.set_ready)
        finally:
            health.close()
    except Misconfigured as error:
        return _tell(name, str(error), supervised=supervised, exit_code=2)
    except Fatal as error:
        return _tell(name, str(error), supervised=supervised, exit_code=1)
    except SansfilmError as error:
        log.error("role_failed", error=type(error).__name__, message=str(error), at=where(error))
        return 1
    except Exception as error:  # noqa: BLE001 - the top of a process: its value-free account is all there is
        log.error("role_failed", error=type(error).__name__, at=where(error))
        return 1
    log.info("role_stopped")
    return 0


def where(error: BaseException) -> str:
    """The innermost places of `error`, as module lines without values."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))


def _tell(name: str, sentence: str, *, supervised: bool, exit_code: int) -> int:
    if supervised:
        get_logger().error("role_failed", message=sentence)
    else:
        print(f"sansfilm {name}: {sentence}", file=sys.stderr)
    return exit_code


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        get_logger().error("thread_failed", error=failure.exc_type.__name__, at=where(failure.exc_value))
