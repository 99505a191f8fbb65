"""A worker that dies of one message: ``python -m tests.workers.actor DATA_DIR SOP_INSTANCE_UID``.

It runs until the log is empty, then stops in order. At the message with that UID it is killed while it judges it, as a
codec that crashes would do; each message that is judged is said on standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from schemas.message import MessageAttributes
from tests.waiting import until
from tests.workers.pool import Pool
from workers import judging
from workers.preparation import Judged, judge


def main(folder: Path, killer_uid: str) -> None:
    def deadly(attributes: MessageAttributes, *rest: Any) -> Judged:
        print(attributes.sop_instance_uid, flush=True)
        if attributes.sop_instance_uid == killer_uid:
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(attributes, *rest)

    judging.judge = deadly  # type: ignore[assignment]
    pool = Pool(folder, worker_threads=1)
    with pool.working():
        until(lambda: pool.left() == 0, what="an empty log")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
