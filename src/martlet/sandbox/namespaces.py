"""What a cell sees as its machine: its own processes, mounts, host name and shared memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Clone

OWN = Clone.MOUNT | Clone.IPC | Clone.UTS


class PidNamespaces:
    """Forks children that are each process 1 of a PID namespace of their own.

    ``unshare`` makes the namespace, the next child becomes its first process, and ``setns`` brings the later
    children back home: so plain ``os.fork`` serves, with all that it does for Python's own state.
    """

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def fork(self, child: Callable[[], NoReturn]) -> int:
        """Forks; the child runs ``child``. Returns the child's process id as the parent sees it."""
        syscalls.unshare(Clone.PID)
        try:
            return fork(child)
        finally:
            syscalls.setns(self._home, Clone.PID)


def fork(child: Callable[[], NoReturn]) -> int:
    """Forks in the PID namespace of the caller; the child runs ``child``. Returns the child's process id."""
    pid = os.fork()
    if pid == 0:
        child()
    return pid


def separate() -> None:
    """Gives the process mounts, IPC and a host name of its own."""
    syscalls.unshare(OWN)
