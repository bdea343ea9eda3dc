"""What runs in a container: the warm runtime, which waits for code, confines itself for good and becomes the function.

It has no power: what takes some, the keeper does from outside, before it asks for anything. It is what the container
starts as (`main`), or a fork of the keeper that has entered the container (`entering`).
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

from martlet.sandbox import landlock, rlimits, syscalls
from martlet.sandbox.bundle import DOOR, SANDBOX
from martlet.sandbox.landlock import Ruleset
from martlet.sandbox.program import Program
from martlet.sandbox.seccomp import prepared
from martlet.sandbox.syscalls import Process

CONFINEMENT = "sandbox"
"""The member of the request to specialise that says what the container may have."""
FILTER = "filter"
"""The file, in the folder of the sandbox, with the filter of system calls."""
SOCKET, LOG = "sock", "log"
"""What is in the door: the socket that this makes, and the FIFO to print to where an engine would take the output."""
_BACKLOG = 128
_LOG, _ERRORS = 1, 2


@dataclass(frozen=True, slots=True)
class Task:
    """What a container is to do; it travels as JSON.

    Attributes:
        module: what serves; see `zygote.Plan`. It may have ``practise()``, for what of ``warm()`` clones are to repeat.
        module_folder: the folder it is imported from.
        program: what ``serve`` is to start; None: the module runs functions itself.
        own_kernel: whether the kernel is the container's own, and not Linux.
        usual: the limits of most functions, which a guest's cell waits with, by their names in `microvm.control`.
    """

    module: str
    module_folder: str
    program: Program | None
    own_kernel: bool
    usual: dict[str, int] | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of a task."""
        program = document["program"]
        return cls(**document | {"program": program and Program(**program)})


class Inside:
    """What confines the process, and the program that it starts; ``own_kernel`` as in `Task`."""

    def __init__(self, own_kernel: bool) -> None:
        self._own_kernel = own_kernel
        self._filter = Path(SANDBOX, FILTER).read_bytes()
        self._rules: Ruleset | None = None
        self._program: int | None = None

    def prepare(self) -> None:
        """Makes the rules about files, in the process that they are for, which sees what it is going to see."""
        self._make_rules(scoped=True)

    def confine(self, request: dict[str, Any]) -> None:
        """Takes the limits, which hold from here on, and closes both walls behind this process."""
        confinement = request[CONFINEMENT]
        os.chdir(request["code"])
        processes = (0,) if self._program is None else (0, self._program)
        for process in processes:
            if confinement["every_cpu"]:
                _spread(process)
            rlimits.apply(
                confinement["open_files"],
                confinement["scratch"],
                confinement["processes"],
                process,
                message_queues=not self._own_kernel,
            )
        self.close()

    def close(self) -> None:
        """Closes both walls behind this process, for good."""
        # What the program runs has the same user, and must not change the memory of its warden.
        syscalls.prctl(Process.SET_DUMPABLE, 0)
        self._lock()

    def fork(self, child: Callable[[], NoReturn]) -> int:
        """Forks a process that is confined and runs ``child``: what starts before there is code.

        Returns:
            The child's process id.
        """
        pid = os.fork()
        if pid == 0:
            try:
                self._lock()
                child()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        self._program = pid
        if self._rules is not None:
            self._rules.close()
        # This process must still reach the program, which is behind its own wall already, with signals.
        self._make_rules(scoped=False)
        return pid

    def _lock(self) -> None:
        if self._rules is not None:
            self._rules.enforce()
        prepared.enforce(self._filter)

    def _make_rules(self, *, scoped: bool) -> None:
        """Makes the rules of Landlock, where there is one; they hold for code that is mounted later, too."""
        version = landlock.version()
        if version:
            self._rules = Ruleset(version, scoped=scoped)
            for path, access in landlock.INSIDE.items():
                self._rules.allow(path, access)
            self._rules.allow(_LOG, landlock.WRITE_FILES)  # which programs open anew, as /dev/stdout


def _spread(process: int) -> None:
    for thread in os.listdir(f"/proc/{process}/task") if process else ["0"]:
        os.sched_setaffinity(int(thread), range(os.cpu_count() or 1))


def load(task: Task) -> ModuleType:
    """Returns the module that serves, warm."""
    sys.path.insert(0, task.module_folder)
    module = importlib.import_module(task.module)
    sys.path.remove(task.module_folder)
    module.warm()
    return module


def serve(task: Task, module: ModuleType) -> None:
    """Lives the life of a cell, on the socket that it makes."""
    inside = Inside(task.own_kernel)
    inside.prepare()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{DOOR}/{SOCKET}")
    listener.listen(_BACKLOG)
    if task.program is None:
        module.serve(listener, inside.confine)
    else:
        module.serve(listener, inside.confine, task.program, inside.fork)


def main(document: dict[str, Any]) -> None:
    """Is what a container starts as."""
    _print_to_log()
    task = Task.from_json(document)
    serve(task, load(task))


def _print_to_log() -> None:
    try:
        # For writing alone it would not open before there is a reader.
        log = os.open(f"{DOOR}/{LOG}", os.O_RDWR)
    except FileNotFoundError:
        return  # it prints there already
    for stream in (_LOG, _ERRORS):
        os.dup2(log, stream)
    os.close(log)
