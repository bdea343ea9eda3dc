"""The program that a container starts as: a warm runtime behind a socket, which waits for code.

The engine has confined it before its first instruction: it never has any power, and only adds the filter of system
calls. What takes power (the code, the limits) is done from outside, before the request to specialise comes.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Self

from martlet.sandbox import namespaces, rlimits, root
from martlet.sandbox.program import Program
from martlet.sandbox.seccomp import filter as seccomp

SOCKET, LOG, CALLS = "sock", "log", "calls"
"""What is in the door: the socket that the program makes, the FIFO that it prints to, and its compiled filter."""
RLIMITS = "rlimits"
"""The member of the request to specialise that carries what `rlimits.apply` takes."""
_UNHEARD = "unheard"
"""The socket while nobody listens on it."""
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Plan:
    """What a container becomes.

    Attributes:
        module: as in `martlet.sandbox.zygote.Plan`.
        module_folder: the folder it is imported from, as the container sees it.
        program: what the module is to start; None: it runs functions itself.
        door: the folder that it shares with the lane.
        filtered: whether its system calls are.
    """

    module: str
    module_folder: str
    program: Program | None
    door: str
    filtered: bool

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of a plan."""
        program = document["program"] and Program(**document["program"])
        return cls(**document | {"program": program})


def main(document: dict[str, Any]) -> NoReturn:
    """Lives the life of a cell."""
    plan = Plan.from_json(document)
    os.umask(0o022)
    # For writing alone it would not open before there is a reader.
    log = os.open(f"{plan.door}/{LOG}", os.O_RDWR)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if plan.filtered:
        with open(f"{plan.door}/{CALLS}", "rb") as compiled:
            seccomp.enforce(compiled.read())
    sys.path.insert(0, plan.module_folder)
    module = importlib.import_module(plan.module)
    sys.path.remove(plan.module_folder)
    module.warm()
    cell = _Cell()
    serve = module.serve
    if plan.program is not None:
        serve = partial(serve, program=plan.program, fork=cell.fork)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{plan.door}/{_UNHEARD}")
    listener.listen(_BACKLOG)
    os.rename(f"{plan.door}/{_UNHEARD}", f"{plan.door}/{SOCKET}")  # whoever finds it may connect
    serve(listener, cell.confine)
    os._exit(0)


class _Cell:
    """What is left to do inside: a process may give limits to itself, and to others of its user."""

    def __init__(self) -> None:
        self._program: int | None = None

    def fork(self, child: Callable[[], NoReturn]) -> int:
        """Forks the program that the runtime starts before there is code. Returns its process id."""
        self._program = namespaces.fork(child)
        return self._program

    def confine(self, request: dict[str, Any]) -> None:
        """Ends before the first byte of the user's code is read."""
        for process in (0, self._program):
            if process is not None:
                rlimits.apply(**request[RLIMITS], process=process)
        os.chdir(root.FUNCTION)
