"""The log of Martlet itself: one line an event on stderr, the same for all its processes and libraries."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer, StackInfoRenderer, TimeStamper
from structlog.stdlib import BoundLogger, ExtraAdder, LoggerFactory, ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor


def configure(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Sets up structlog, and takes along what libraries tell the standard library's ``logging``.

    Called again, it replaces what it set up before.

    Args:
        level: the least level that is logged: ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.
        style: ``json`` for machines, ``text`` for people; ``auto`` asks whether stderr is a terminal.
    """
    steps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        ExtraAdder(),
        TimeStamper(fmt="iso", utc=True),
        StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *steps, ProcessorFormatter.wrap_for_formatter],
        logger_factory=LoggerFactory(),
        wrapper_class=BoundLogger,
    )
    as_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[ProcessorFormatter.remove_processors_meta, *(_json() if as_json else _text())],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request


# Both kinds of traceback leave local variables out: they hold keys and people's data.


def _json() -> list[Processor]:
    return [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), JSONRenderer()]


def _text() -> list[Processor]:
    return [ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
