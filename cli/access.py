"""Access events of commands: what was read of an archive from this machine, by whom; beside those of the web role.

One JSON line each in ``logs/cli.log`` of the data folder, with the fields of the web's events. They name resources by
UID, never by a value of a data set. A file that cannot be written is said on standard error, and the read goes on: on a
full disk one must still be able to look.
"""

from __future__ import annotations

import getpass
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from cli.output import err
from runtime.clock import SystemClock, rfc3339
from schemas.identifiers import is_conforming_uid

LOG_NAME: Final = "cli.log"
#: At this size the file is renamed to .1 and begun anew, as the roles' are.
LOG_MAX_BYTES: Final = 16 * 1024 * 1024
_UNFIT = re.compile(r"[^A-Za-z0-9._@-]")


def user_name() -> str:
    """The name of the user who runs this command, fit for events and sources; the number of one without a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return _UNFIT.sub("_", name)[:64]


def note_access(data_dir: Path, *, service: str, tenant: str, uid: str = "") -> None:
    """Write one event. What `uid` names is left out unless it looks like a UID: anything may have been typed."""
    clock = SystemClock()
    event = {
        "event": "resource_read",
        "level": "info",
        "role": "cli",
        "service": service,
        "principal": user_name(),
        "tenant": tenant,
        **({"uid": uid} if is_conforming_uid(uid) else {}),
        "timestamp": rfc3339(clock.now()),
    }
    path = data_dir / "logs" / LOG_NAME
    try:
        path.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            if path.stat().st_size > LOG_MAX_BYTES:
                path.replace(path.with_suffix(".log.1"))
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps(event).encode() + b"\n")
        finally:
            os.close(file)
    except OSError as error:
        err().print(f"sansfilm: this access is not in {path}: {error.strerror}", markup=False, soft_wrap=True)
