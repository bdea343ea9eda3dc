"""Finds the monitor of a microVM, and what that may be forked from."""

import os
from pathlib import Path


def monitor_of(warden: int) -> int:
    """Returns the id of the process that is with a warden in its PID namespace, whoever has forked it."""
    namespace = os.readlink(f"/proc/{warden}/ns/pid")
    (monitor,) = (int(each.name) for each in Path("/proc").glob("[0-9]*") if _is_in(each, namespace, warden))
    return monitor


def parent_of(process: int) -> int:
    """Returns the id of the process that has forked one."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def fork_server_of(warden: int) -> int:
    """Returns the id of the process that the zygote of a warden has monitors forked from."""
    zygote = parent_of(warden)
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    namespace = os.readlink(f"/proc/{zygote}/ns/pid")
    (server,) = (int(each) for each in children if os.readlink(f"/proc/{each}/ns/pid") == namespace)
    return server


def _is_in(process: Path, namespace: str, warden: int) -> bool:
    try:
        return os.readlink(process / "ns" / "pid") == namespace and process.name != str(warden)
    except OSError:  # it has ended
        return False
