"""Limits that a process carries with it, under those that its cgroup sets for all of the sandbox."""

from __future__ import annotations

import resource


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
    _limit(process, resource.RLIMIT_NOFILE, open_files)
    _limit(process, resource.RLIMIT_FSIZE, file_bytes)
    _limit(process, resource.RLIMIT_MEMLOCK, 64 * 1024)
    # A core pattern that pipes to a program ignores a limit of 0, and takes 1 as the order to dump nothing.
    _limit(process, resource.RLIMIT_CORE, 1)
    if message_queues:
        _limit(process, resource.RLIMIT_MSGQUEUE, 0)
    if processes is not None:
        _limit(process, resource.RLIMIT_NPROC, processes)


def practise() -> None:
    """Goes the way of `apply` with limits that hold already."""
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        _, hard = resource.prlimit(0, kind)
        _limit(0, kind, hard)


def _limit(process: int, kind: int, value: int) -> None:
    _, hard = resource.prlimit(process, kind)
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(process, kind, (allowed, allowed))
