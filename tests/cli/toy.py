"""A supervisor over toy roles, run as a process of its own: ``python -m tests.cli.toy FOLDER KIND...``.

Each toy is a real role process (`cli.roles.run_role`: logs, signals, health) whose loop does what its kind says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cli.roles import run_role
from cli.supervisor import Bounds, ChildSpec, Supervisor
from runtime.errors import Misconfigured
from runtime.logs import get_logger
from runtime.settings import CommonSettings

READY_S = float(os.environ.get("TOY_READY_S", "20"))
STOP_S = float(os.environ.get("TOY_STOP_S", "20"))
STAGES = {"edge": 0, "worker": 1, "web": 2}


def main(folder: Path, kinds: list[str]) -> int:
    """Supervise `kinds`, each ``role:kind``; notices and readiness go to standard output as JSON lines."""
    settings = CommonSettings(data_dir=folder)
    supervisor = Supervisor(
        [spec(settings, *kind.split(":")) for kind in kinds],
        run_dir=settings.run_dir,
        logs_dir=folder / "logs",
        bounds=Bounds(
            ready_timeout_s=READY_S, shutdown_timeout_s=STOP_S, restart_wait_max_s=0.2, log_file_max_bytes=8192
        ),
        on_ready=lambda: say("ready"),
        on_notice=lambda name, text: say("notice", name=name, text=text),
    )
    return supervisor.run()


def spec(settings: CommonSettings, role: str, kind: str) -> ChildSpec:
    """A toy child of that role and kind."""

    def body(stop: threading.Event, ready: Callable[[], None]) -> None:
        KINDS[kind](settings.data_dir, stop, ready)
        with (settings.data_dir / "ended").open("a") as file:
            file.write(f"{role}\n")

    return ChildSpec(
        role=role,
        index=0,
        stop_stage=STAGES[role],
        run=lambda: run_role(role, 0, settings, body, supervised=True),
    )


def say(what: str, **more: str) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


def plain(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    ready()
    stop.wait(60)


def never_ready(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    stop.wait(60)


def deaf(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    ready()
    threading.Event().wait(60)


def misconfigured(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    raise Misconfigured("the thing is not plugged in")


def failing_twice(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    starts = folder / "starts"
    count = int(starts.read_text()) if starts.exists() else 0
    starts.write_text(str(count + 1))
    if count < 2:
        raise ValueError("PLANTED^NAME")
    plain(folder, stop, ready)


def chatty(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    for number in range(400):
        get_logger().info("chatted", number=number)
    get_logger().warning("chatted_enough", number=400)
    plain(folder, stop, ready)


def segfaulting_once(folder: Path, stop: threading.Event, ready: Callable[[], None]) -> None:
    mark = folder / "fell"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    plain(folder, stop, ready)


KINDS: dict[str, Callable[[Path, threading.Event, Callable[[], None]], None]] = {
    "plain": plain,
    "never_ready": never_ready,
    "deaf": deaf,
    "misconfigured": misconfigured,
    "failing_twice": failing_twice,
    "chatty": chatty,
    "segfaulting_once": segfaulting_once,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
