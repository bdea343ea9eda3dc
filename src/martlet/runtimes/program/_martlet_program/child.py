"""A program that has been started: what it is given, and how it is heard of."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

LISTENER = SPECIFICATION = 3
ANSWER = 4
BASE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}  # noqa: S108

Fork = Callable[[Callable[[], NoReturn]], int]
"""Forks a process that runs what it is given; returns the process id."""

_FIRST_FREE = 100
"""Above the descriptors that a program is given, those of its packages among them (`martlet.sandbox.launcher`)."""
_MAX_SIGNAL = 64


class Child:
    """One started program. Make one with `start`.

    Attributes:
        pid: its process.
        end: readable once it has ended.
        answer: where it says what became of the code.
    """

    def __init__(self, pid: int, specification: int, answer: int) -> None:
        self.pid = pid
        self.end = _end_of(pid)
        self.answer = answer
        self._specification = specification
        self._status: int | None = None

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        given: Mapping[int, int],
        *,
        told_at: int = 0,
        fork: Fork | None = None,
    ) -> Child:
        """Starts a program.

        Args:
            command: the program with its arguments.
            environment: all of its variables.
            given: descriptors that it gets, by the numbers that they have there.
            told_at: the descriptor on which it reads its specification.
            fork: what forks it, where that is to be confined; None: a plain fork.

        Raises:
            OSError: it cannot be executed.
        """
        told, specification = pipe()
        answer, said = pipe()
        reader, failure = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()

        def become() -> NoReturn:
            try:
                if fork is None:
                    _die_with(parent)
                _execute(command, environment, {**given, told_at: told, ANSWER: said})
            except OSError as error:
                os.write(failure, f"{error.errno} {command[0]}".encode())
            os._exit(127)

        pid = (fork or _fork)(become)
        for descriptor in (told, said, failure):
            os.close(descriptor)
        child = cls(pid, specification, answer)
        with open(reader, "rb") as refused:
            words = refused.read().decode()
        if words:
            number, _, name = words.partition(" ")
            raise OSError(int(number), os.strerror(int(number)), name)
        return child

    def tell(self, specification: Mapping[str, Any]) -> None:
        """Writes the specification; a program that does not read it any more has ended or will."""
        line = json.dumps(specification).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError), open(self._specification, "wb") as pipe:
            pipe.write(line)

    def ended(self, patience: float = 0) -> bool:
        """Whether it has ended, or does within so many seconds."""
        events = select.poll()
        events.register(self.end, select.POLLIN)
        return bool(events.poll(patience * 1000))

    def code(self) -> int:
        """Waits for its end and returns its exit code, negative where a signal ended it."""
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self._status)

    def signal(self, number: int) -> None:
        """Sends it a signal, where it still lives: until it is waited for, which ends the warden, its id is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def pipe() -> tuple[int, int]:
    """Makes a pipe for a program, and returns its ends.

    The program may open it by name (``/dev/fd/3``) whoever it is by then; others do not get at that name.
    """
    ends = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(
        PermissionError
    ):  # gVisor's pipes are nobody's, and open to the one user that there is
        os.fchmod(ends[0], 0o666)
    return ends


def _end_of(pid: int) -> int:
    """Returns a descriptor that is readable once a child has ended."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    reader, writer = os.pipe2(os.O_CLOEXEC)  # gVisor has no descriptors of processes

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(writer)

    threading.Thread(target=wait, daemon=True).start()
    return reader


def _fork(child: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        child()
    return pid


def _die_with(parent: int) -> None:
    """Asks the kernel to be killed with the warden: where there is no PID namespace, nothing else takes it along."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _execute(command: Sequence[str], environment: Mapping[str, str], given: Mapping[int, int]) -> NoReturn:
    os.setsid()
    # First out of the way of each other: one may have the number of another.
    moved = {
        number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        for number, descriptor in given.items()
    }
    for number, descriptor in moved.items():
        os.dup2(descriptor, number)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    program = shutil.which(command[0], path=BASE_ENVIRONMENT["PATH"]) if "/" not in command[0] else command[0]
    os.execve(program or command[0], [*command], environment)  # noqa: S606
