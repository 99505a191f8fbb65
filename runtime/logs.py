"""Structured logging: one JSON object a line on standard error, or aligned text on a terminal.

Events are in the past tense (``instance_committed``); ids are bound per association or batch; a patient attribute is
never bound. Libraries' loggers quote values of data sets in their warnings, so they are silenced here, once.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, cast

import structlog

LogFormat = Literal["auto", "json", "text"]
_QUOTING_LIBRARIES = ("pydicom", "pylibjpeg")


def configure_logs(*, role: str, level: str = "info", log_format: LogFormat = "auto") -> None:
    """Configure logging for this process. Call once, first."""
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)
    for name in _QUOTING_LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [logging.NullHandler()]
        library.propagate = False


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """A logger; bind ids to it, never values of a data set."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger())
