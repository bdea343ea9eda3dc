"""Waits for a program's end, as the first process of a sandbox has to."""

from __future__ import annotations

import os
import signal

from .child import Child

_HEARD = (signal.SIGTERM, signal.SIGCHLD)


def wait(child: Child) -> int:
    """Passes SIGTERM on and waits for orphans too, until the program has ended.

    Returns:
        See `exit_code`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    while (code := reap(child)) is None:
        if signal.sigwait(_HEARD) == signal.SIGTERM:
            child.signal(signal.SIGTERM)
    return code


def reap(child: Child) -> int | None:
    """Waits for what has ended already. Returns the `exit_code` once the program is among it."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == child.pid:
            return exit_code(os.waitstatus_to_exitcode(status))


def exit_code(code: int) -> int:
    """Returns what says how a program has ended: its own exit code, or 128 and the signal that ended it."""
    return 128 - code if code < 0 else code
