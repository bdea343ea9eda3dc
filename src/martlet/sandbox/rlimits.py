"""Limits that a process carries with it, under those that its cgroup sets for all of the sandbox."""

from __future__ import annotations

import ctypes
import resource

from martlet.sandbox.script import Script, Slot

INFINITE = (1 << 64) - 1
_FIXED = {
    resource.RLIMIT_MEMLOCK: 64 * 1024,
    # A core pattern that pipes to a program ignores a limit of 0, and takes 1 as the order to dump nothing.
    resource.RLIMIT_CORE: 1,
    resource.RLIMIT_MSGQUEUE: 0,
}
_GIVEN = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)


def apply(
    open_files: int,
    file_bytes: int,
    processes: int | None,
    process: int = 0,
    *,
    message_queues: bool = True,
) -> None:
    """Limits a process and what it starts from then on, for good.

    Args:
        open_files: descriptors a process may have.
        file_bytes: how large a file may grow.
        processes: processes and threads the user may have; None where the user is not the sandbox's alone.
        process: another one of the same user; 0: the caller.
        message_queues: whether the kernel limits these; gVisor's does not.
    """
    for kind, fixed in _FIXED.items():
        if message_queues or kind != resource.RLIMIT_MSGQUEUE:
            _limit(process, kind, fixed)
    for kind, given in zip(_GIVEN, (open_files, file_bytes, processes), strict=True):
        if given is not None:
            _limit(process, kind, given)


class _Limit(ctypes.Structure):
    _fields_ = (("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64))


class Limits:
    """What `apply` does, written down for processes that have the hard limits of this one.

    Args:
        script: where.
        process: takes the process's id before the script runs.
    """

    def __init__(self, script: Script, process: Slot) -> None:
        self._limits: dict[int, tuple[_Limit, int]] = {}
        for kind in (*_FIXED, *_GIVEN):
            _, hard = resource.getrlimit(kind)
            highest = INFINITE if hard == resource.RLIM_INFINITY else hard
            limit = _Limit()
            self._limits[kind] = limit, highest
            self._set(kind, _FIXED.get(kind, highest))
            script.call("prlimit64", process, kind, limit, None)

    def fill(self, open_files: int, file_bytes: int, processes: int | None) -> None:
        """Sets what is not the same for all; for the arguments see `apply`."""
        for kind, value in zip(_GIVEN, (open_files, file_bytes, processes), strict=True):
            self._set(kind, INFINITE if value is None else value)

    def _set(self, kind: int, value: int) -> None:
        limit, highest = self._limits[kind]
        limit.soft = limit.hard = min(value, highest)


def _limit(process: int, kind: int, value: int) -> None:
    _, hard = resource.prlimit(process, kind)
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(process, kind, (allowed, allowed))
