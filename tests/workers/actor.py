"""A worker that dies of one message: ``python -m tests.workers.actor DATA_DIR SOP_INSTANCE_UID [ANOTHER]``.

It runs until the log is empty, then stops in order. At the message with that UID it is killed while it judges it, as a
codec that crashes would do; each message that is judged is said on standard output. The two messages wait a moment for
each other, so that both are in flight at the death if they may be.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from schemas.message import MessageAttributes
from tests.waiting import until
from tests.workers.pool import Pool
from workers import decisions, judging
from workers.preparation import Judged, judge

_MOMENT_S = 0.5


def main(folder: Path, killer_uid: str, another_uid: str = "") -> None:
    killer_is_there, another_is_there = threading.Event(), threading.Event()

    def deadly(attributes: MessageAttributes, *rest: Any) -> Judged:
        print(attributes.sop_instance_uid, flush=True)
        if attributes.sop_instance_uid == killer_uid:
            killer_is_there.set()
            if another_uid:
                another_is_there.wait(_MOMENT_S)
            os.kill(os.getpid(), signal.SIGKILL)
        if attributes.sop_instance_uid == another_uid:
            another_is_there.set()
            if killer_is_there.wait(_MOMENT_S):
                threading.Event().wait()  # a large honest one, which is at it when the process dies
        return judge(attributes, *rest)

    judging.judge = deadly  # type: ignore[assignment]
    decisions.judge = deadly  # type: ignore[assignment]
    pool = Pool(folder, worker_threads=2 if another_uid else 1)
    with pool.working():
        until(lambda: pool.left() == 0, what="an empty log")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
