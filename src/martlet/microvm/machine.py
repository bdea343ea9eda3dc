"""What every microVM has: the one choice that templates, and what functions may ask for, follow from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from martlet.microvm.control import LINKS
from martlet.sandbox.launcher import Elsewhere

MEMORY = 512 * 1024 * 1024
"""Bytes of a machine. It costs the host only what the guest touches."""
MOST_MEMORY = MEMORY - 128 * 1024 * 1024
"""Bytes that a function may have of it: the rest is for the guest's kernel, its agent, and the code."""
MOST_REQUESTS = len(LINKS)
"""Requests that a machine serves at once."""
OVERHEAD = 160 * 1024 * 1024
"""Bytes that the monitor may take besides: code that it has translated, and its own."""
PLACE, MEMORY_FILE, STATE_FILE, ROOT_FILE = "/.template", "memory", "state", "root"
"""Where a sandbox shows a template, and its files: memory and state of the machine, and its root."""
SCRIPT_FILE = "restore.json"
"""What Firecracker is told to restore it; there is none where it is QEMU's."""


class Fork(Protocol):
    """What a monitor is started by, confined (`launcher.Forks`)."""

    def __call__(self, child: Callable[[], NoReturn]) -> int:
        """Forks a process that runs ``child``. Returns its id."""

    def elsewhere(self, elsewhere: Elsewhere) -> int:
        """Has it forked from another process. Returns its id; raises OSError."""
