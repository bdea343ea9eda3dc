"""What a cell sees as its machine: its own processes, mounts, host name and shared memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from martlet.sandbox import syscalls
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.script import Calls
from martlet.sandbox.syscalls import Clone

OWN = Clone.MOUNT | Clone.IPC | Clone.UTS


class PidNamespaces:
    """Forks children into other PID namespaces, of which they are process 1 where the namespace is their own.

    ``unshare`` makes the namespace, the next child becomes its first process, and ``setns`` brings the later
    children back home: so a plain fork serves.
    """

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def fork(self, child: Callable[[], NoReturn], meanwhile: Callable[[], object] | None = None) -> int:
        """Forks; the child runs ``child``, and the parent ``meanwhile`` before it comes home.

        Returns:
            The child's process id as the parent sees it.
        """
        syscalls.unshare(Clone.PID)
        try:
            return fork_warm(child, meanwhile)
        finally:
            syscalls.setns(self._home, Clone.PID)

    def fork_into(self, first: int, child: Callable[[], NoReturn]) -> int:
        """Forks into the PID namespace whose first process is ``first``, a pidfd; otherwise as `fork`."""
        syscalls.setns(first, Clone.PID)
        try:
            return fork_warm(child)
        finally:
            syscalls.setns(self._home, Clone.PID)


def fork_warm(child: Callable[[], NoReturn], meanwhile: Callable[[], object] | None = None) -> int:
    """Forks what is there to be forked from (`syscalls.fork`), and runs ``meanwhile`` here; otherwise as `fork`."""
    pid = syscalls.fork()
    if pid == 0:
        child()
    if meanwhile is not None:
        meanwhile()
    return pid


def fork(child: Callable[[], NoReturn]) -> int:
    """Forks in the PID namespace of the caller; the child runs ``child``. Returns the child's process id."""
    pid = os.fork()
    if pid == 0:
        child()
    return pid


def become_first(link: int) -> None:
    """Goes on as process 1 of a new PID namespace, and leaves a process outside that waits for it and ends as it did.

    Coming home from a PID namespace takes power over one's own: without root, that must be one that one has made.
    Whichever of the two is killed takes the other along, and the kernel all that is in the namespace.

    Args:
        link: a descriptor that only the inner process keeps, so that its peer hears of that one's end.
    """
    syscalls.unshare(Clone.PID)
    lifeline = Lifeline()
    pid = os.fork()
    if pid:
        os.close(link)
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    lifeline.keep_reader()
    lifeline.hold()
    lifeline.release()


def host_id(pid: int, proc: str = "/proc") -> int:
    """Returns the id by which the host knows a child of this process that is in another PID namespace than the host.

    Args:
        pid: of the child, as this process knows it.
        proc: where the host's ``/proc`` is to be seen.
    """
    descriptor = os.pidfd_open(pid)
    try:
        with open(f"{proc}/self/fdinfo/{descriptor}") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
    finally:
        os.close(descriptor)


def separate(calls: Calls = syscalls) -> None:
    """Gives the process mounts, IPC and a host name of its own."""
    calls.unshare(OWN)
