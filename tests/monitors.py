"""Finds the monitor of a microVM."""

import os
from pathlib import Path


def monitor_of(warden: int) -> int:
    """Returns the id of the process that is with a warden in its PID namespace, whoever has forked it."""
    namespace = os.readlink(f"/proc/{warden}/ns/pid")
    (monitor,) = (int(each.name) for each in Path("/proc").glob("[0-9]*") if _is_in(each, namespace, warden))
    return monitor


def _is_in(process: Path, namespace: str, warden: int) -> bool:
    try:
        return os.readlink(process / "ns" / "pid") == namespace and process.name != str(warden)
    except OSError:  # it has ended
        return False
