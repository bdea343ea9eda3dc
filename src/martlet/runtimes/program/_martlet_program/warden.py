"""The life of a cell that has a program: it starts it, has it load the code, and ends as it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from _martlet_python.http1 import Parser  # type: ignore[import-not-found]
from _martlet_python.reception import Reception  # type: ignore[import-not-found]

from . import answer
from .answer import Answer
from .child import BASE_ENVIRONMENT, Child, Fork
from .ways import WAYS

Prepare = Callable[[dict[str, Any]], None]
"""Called with the request to specialise: mounts the code, and drops all power of the cell."""

_SPECIFICATION = (
    "function",
    "revision",
    "code",
    "dependencies",
    "handler",
    "environment",
    "concurrency",
    "max_body",
    "memory",
)


class Program(Protocol):
    """How the program is started (see `martlet.sandbox.program`)."""

    command: list[str]
    environment: Mapping[str, str]
    cell: str
    listen: str


def warm() -> None:
    """Prepares the process that cells are forked from."""
    json.loads("{}")


def serve(listener: socket.socket, prepare: Prepare, program: Program, fork: Fork | None) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process as the program has ended.

    Args:
        listener: where requests come from.
        prepare: see `Prepare`.
        program: what to start.
        fork: what forks the program confined before there is code; None: it is not to start before.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    warden = _Warden(listener, prepare, program)
    if fork is not None and program.cell == "warm":
        warden.start_early(fork)
    Reception(warden.specialise, goes_on=False).receive(listener)
    warden.run()


class _Warden:
    def __init__(self, listener: socket.socket, prepare: Prepare, program: Program) -> None:
        self._prepare = prepare
        self._command = list(program.command)
        self._way = WAYS[program.listen](listener)
        self._environment = {**BASE_ENVIRONMENT, **program.environment, **self._way.variables}
        self._specification: dict[str, Any] = {}
        self._child: Child | None = None

    def start_early(self, fork: Fork) -> None:
        """Starts the program before there is code. Where that fails it is started again with the code."""
        try:
            self._child = self._way.start(self._command, self._environment, fork)
        except OSError as error:
            print(f"the runtime does not start: {error}", flush=True)

    def specialise(self, body: bytes, _: Parser) -> Answer:
        """Has the program load the code. Returns status and document of the answer."""
        try:
            document = json.loads(body)
            self._specification = {name: document[name] for name in _SPECIFICATION}
            if document.get("template"):
                return 409, {
                    "error": {"type": "Unforkable", "message": "its runtime is a program of its own"}
                }
            self._prepare(document)
            image = document.get("program")
        except Exception as error:
            return 500, {"error": {"type": type(error).__name__, "message": str(error)}}
        try:
            if image is not None:
                self._take(image)
            if self._child is None or self._child.ended():
                self._child = self._start()
            else:
                self._child.tell(self._specification)
        except OSError as error:
            return answer.not_started(error) if image is None else answer.image_not_started(error)
        # Whoever hears that the code is loaded may ask for the end at once, before `run` listens for that.
        signal.signal(signal.SIGTERM, lambda *_: self._ask_to_end())
        return self._way.hear(self._child)

    def _take(self, image: Mapping[str, Any]) -> None:
        """Starts the program of the image that the sandbox is made of, as this says it is started. Raises OSError."""
        self._environment = {**BASE_ENVIRONMENT, **image["environment"], **self._way.variables}
        path = self._specification["environment"].get("PATH", self._environment["PATH"])
        os.chdir(image["folder"])
        program, *arguments = image["command"]
        found = program if "/" in program else shutil.which(program, path=path)
        self._command = [found or program, *arguments]

    def _ask_to_end(self) -> None:
        assert self._child is not None
        self._child.signal(signal.SIGTERM)

    def run(self) -> NoReturn:
        """Ends as the program has ended."""
        assert self._child is not None
        os._exit(self._way.serve(self._child, self._specification, self._start))

    def _start(self) -> Child:
        child = self._way.start(self._command, self._environment | _in_environment(self._specification), None)
        child.tell(self._specification)
        return child


def _in_environment(specification: dict[str, Any]) -> dict[str, str]:
    """Returns the function's own variables, and the specification as variables: who is started with the code need not
    read JSON."""
    told = {
        name: "" if value is None else str(value)
        for name, value in specification.items()
        if name != "environment"
    }
    own: dict[str, str] = specification["environment"]
    return own | {f"MARTLET_{name.upper()}": value for name, value in told.items()}
