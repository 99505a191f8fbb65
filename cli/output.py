"""How a command speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

_PIPE_COLUMNS = 1000
_UNITS = ("B", "kB", "MB", "GB", "TB")


def out() -> Console:
    """The console for results: as wide as the terminal; into a pipe or file plain, and never folded."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


class LastingConsole(Console):
    """A console whose reader may go away or not read: what cannot be written at once is lost, and nothing else happens.

    What is printed at one time must fit the 4 KiB that a writable pipe or terminal takes without blocking.
    """

    def say(self, what: RenderableType, *, soft_wrap: bool = False) -> None:
        """Print `what` if standard output takes it now."""
        _, writable, _ = select.select([], [sys.stdout], [], 0)
        if writable:
            self.print(what, soft_wrap=soft_wrap)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def err() -> Console:
    """The console for progress, warnings and notices."""
    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A quiet table; values are shown as they are, never read as markup."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(value)) for value in row))
    return made


def fields(values: Mapping[str, object]) -> Table:
    """Names and values, one a line; empty values are left out."""
    shown = [(name, value) for name, value in values.items() if value not in ("", None, ())]
    made = table("", ("", ""), shown)
    made.show_header = False
    made.columns[0].style = "dim"
    return made


def size_text(size_bytes: float) -> str:
    """Bytes with a decimal unit, as disks are sold."""
    unit = 0
    while size_bytes >= 1000 and unit < len(_UNITS) - 1:
        size_bytes, unit = size_bytes / 1000, unit + 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def _plain(value: object) -> Any:
    """What JSON does not know: attributes as an object, everything else as text."""
    headers = getattr(value, "to_headers", None)
    if headers is not None:
        return headers()
    names = getattr(value, "__dataclass_fields__", None)
    return {name: getattr(value, name) for name in names} if names else str(value)
