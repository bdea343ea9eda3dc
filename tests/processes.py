"""What the kernel says of processes."""

from __future__ import annotations


def status_of(pid: int | str = "self") -> dict[str, str]:
    """Returns the lines of a process's ``/proc/<pid>/status``."""
    with open(f"/proc/{pid}/status") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def lives(pid: int) -> bool:
    """Whether a process runs. A zombie does not; nor does one that ends while this is asked."""
    try:
        return status_of(pid)["State"][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
