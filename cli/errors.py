"""How an error ends a command: one sentence on standard error and an exit code."""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup

MISCONFIGURED, FAILED = 2, 1


class SentenceGroup(TyperGroup):
    """A command group that shows the product's own errors as a sentence; anything else is a bug and keeps its trace."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            print(f"sansfilm: {error}", file=sys.stderr)
            raise typer.Exit(code) from error


def _exit_code(error: Exception) -> int | None:
    # Imported late: the error tree is cheap, what raises it need not be loaded for `--help`.
    from runtime.errors import Misconfigured, SansfilmError

    if isinstance(error, Misconfigured):
        return MISCONFIGURED
    return FAILED if isinstance(error, SansfilmError) else None
