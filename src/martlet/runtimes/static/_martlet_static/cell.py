"""The life of a cell that serves files: it is told which, and serves them until SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

from _martlet_python import blocking, process
from _martlet_python.http1 import Parser
from _martlet_python.reception import Reception
from _martlet_python.spec import Spec

from .answer import Answer
from .site import Site
from .types import content_type

Prepare = Callable[[dict[str, Any]], None]
"""Called with the request to specialise: mounts the package, and drops all power of the cell."""

_DEFAULT_HANDLER = "handle"


def warm() -> None:
    """Prepares the process that cells are forked from."""
    json.loads("{}")
    content_type("index.html")


def serve(listener: socket.socket, prepare: Prepare | None = None) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process with code 0."""
    process.reset_signals()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    cell = _Cell(prepare)
    connection = Reception(cell.specialise).receive(listener)
    assert cell.server is not None
    cell.server.run(listener, connection)
    os._exit(0)


class _Cell:
    """What has no package yet. ``server`` is what it became."""

    def __init__(self, prepare: Prepare | None) -> None:
        self.server: blocking.Server | None = None
        self._prepare = prepare

    def specialise(self, body: bytes, parser: Parser) -> tuple[int, dict[str, Any]]:
        """Becomes an instance. Returns status and document of the answer."""
        try:
            document = json.loads(body)
            spec = Spec.from_json(document)
            if spec.template:
                return 409, _error("Unforkable", "files are served by instances of their own")
            if self._prepare is not None:
                self._prepare(document)
        except Exception as error:
            return 500, _error(type(error).__name__, str(error))
        started = time.perf_counter()
        try:
            site = Site(spec.code, None if spec.handler == _DEFAULT_HANDLER else spec.handler)
        except FileNotFoundError as error:
            return 422, _error("FileNotFoundError", str(error))
        self.server = blocking.Server(Answer(site), spec.concurrency, spec.max_body)
        parser.max_body = spec.max_body
        return 200, {"mode": "handler", "load_ms": round((time.perf_counter() - started) * 1000, 3)}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "traceback": ""}}
