"""Processes whose parent died, below the supervisor: a zygote that waits for its lane to come back, a build's tools.

They become the supervisor's children, not those of process 1, which in a container often waits for nobody.
"""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Process


def take_in() -> None:
    """Makes this process the parent of every orphan below it."""
    syscalls.prctl(Process.SET_CHILD_SUBREAPER, 1)


def bury(own: Container[int | None]) -> None:
    """Lets those go that have ended, but for the ``own`` children, whom somebody else waits for."""
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, look)) is not None and dead.si_pid not in own:
            os.waitpid(dead.si_pid, 0)
