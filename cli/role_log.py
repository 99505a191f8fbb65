"""A child's output: every line goes to a bounded file, and only warnings come to the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

_LOUD = ("warning", "error", "critical")
_LOUD_TEXT = tuple(f"[{level}" for level in _LOUD)
_LINE_MAX_BYTES = 64 * 1024
_QUIET_FIELDS = ("event", "level", "timestamp", "role")


class RoleLog:
    """``<name>.log`` and, once that reached `max_bytes`, its predecessor ``<name>.log.1``.

    A disk that takes no more lines must not stop what it logs about: lines it refuses are lost, and counted.
    """

    def __init__(self, folder: Path, name: str, *, max_bytes: int, on_warning: Callable[[str], None]) -> None:
        self.path = folder / f"{name}.log"
        self.lost_lines = 0
        self._max_bytes = max_bytes
        self._on_warning = on_warning
        self._rest = b""
        self._file: IO[bytes] | None = None

    def feed(self, output: bytes) -> None:
        """Take what the child wrote; lines may arrive in pieces."""
        *lines, self._rest = (self._rest + output).split(b"\n")
        if len(self._rest) > _LINE_MAX_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._write(line + b"\n")
            warning = summarize(line)
            if warning:
                self._on_warning(warning)

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._rest:
            self.feed(b"\n")
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, line: bytes) -> None:
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            if self._file.tell() + len(line) > self._max_bytes and self._file.tell() > 0:
                self._file.close()
                self.path.replace(self.path.with_suffix(".log.1"))
                self._file = self.path.open("ab", buffering=0)
            self._file.write(line)
        except (OSError, ValueError):
            self.lost_lines += 1
            self._close_file()


def summarize(line: bytes) -> str:
    """A line as the terminal shows it; empty if it is not worth interrupting anyone.

    Lines of our own are JSON with a level. Anything else comes from an interpreter or a library in trouble: shown.
    """
    text = line.decode("utf-8", "replace").strip()
    try:
        event = json.loads(text)
    except ValueError:
        return text if _is_loud_text(text) else ""
    if not isinstance(event, dict) or event.get("level") not in _LOUD:
        return ""
    detail = " ".join(f"{name}={value}" for name, value in event.items() if name not in _QUIET_FIELDS)
    return f"{event['level']}: {event.get('event', '')} {detail}".strip()


def _is_loud_text(text: str) -> bool:
    ours = "[info" in text or "[debug" in text
    return bool(text) and (any(mark in text for mark in _LOUD_TEXT) or not ours)
