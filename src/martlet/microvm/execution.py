"""How a process becomes the monitor of a machine. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn


def execute(command: list[str], lent: Mapping[int, int]) -> NoReturn:
    """Becomes a monitor, with nothing open but where it prints, and what it is lent.

    Args:
        command: the monitor and its arguments.
        lent: descriptors by the numbers that they are to have.
    """
    high = 100 + max(lent, default=0)
    for number, descriptor in enumerate(lent.values()):
        os.dup2(descriptor, high + number, inheritable=False)
    for number, wanted in enumerate(lent):
        os.dup2(high + number, wanted)
    lowest = 3
    for wanted in (*sorted(lent), os.sysconf("SC_OPEN_MAX")):
        os.closerange(lowest, wanted)
        lowest = wanted + 1
    os.execv(command[0], command)  # noqa: S606
