"""Whether a container is confined as the engine was asked to: seen from outside, in what the kernel says of it."""

from __future__ import annotations

import os
from pathlib import Path

from martlet.drivers.guarantees import LIMITS
from martlet.model import Network
from martlet.sandbox.cgroups import Group, Limits
from martlet.sandbox.hierarchies import find_own
from martlet.sandbox.rehearsal import (
    CALLS,
    FILES,
    HOST_NAME,
    NETWORK,
    PRIVILEGES,
    PROC,
    PROCESSES,
    SHARED_MEMORY,
    USER,
)

_NAMESPACES = {
    FILES: "mnt",
    PROCESSES: "pid",
    PROC: "pid",
    SHARED_MEMORY: "ipc",
    HOST_NAME: "uts",
    NETWORK: "net",
}
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FILTERED = "2"


def group_of(pid: int) -> Group | None:
    """Returns the cgroup of a process; None where this one does not see it. Raises OSError where there is none."""
    memberships = Path(f"/proc/{pid}/cgroup").read_text()
    return find_own(Path("/proc/self/mountinfo").read_text(), memberships)


def lacks(pid: int, identity: int, network: Network, limits: Limits) -> dict[str, str]:
    """Returns which guarantees do not hold for the container whose first process is ``pid``, each with the reason.

    Args:
        pid: as this process sees it.
        identity: the user and group id that it should have.
        network: the network that it should be in.
        limits: those that its cgroup should have.

    Raises:
        OSError: there is no such process.
    """
    found: dict[str, str] = {}
    shared = {
        name for name, kind in _NAMESPACES.items() if _namespace(pid, kind) == _namespace(os.getpid(), kind)
    }
    if network is Network.HOST:
        shared -= {NETWORK, HOST_NAME}
    found |= dict.fromkeys(shared, "the engine gave it no namespace of its own")
    if not _root_is_read_only(pid):
        found[FILES] = "its root can be written to"
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    if {*status["Uid"].split(), *status["Gid"].split()} != {str(identity)}:
        found[USER] = f"it runs as {status['Uid'].split()[0]}"
    if any(int(status[name], 16) for name in _CAPABILITIES):
        found[PRIVILEGES] = "it has capabilities"
    elif status["NoNewPrivs"] != "1":
        found[PRIVILEGES] = "what it executes may give it capabilities"
    if status["Seccomp"] != _FILTERED:
        found[CALLS] = "its system calls are not filtered"
    group = group_of(pid)
    if group is None or group.limits() != limits:
        found[LIMITS] = "its cgroup does not have the limits that were asked for"
    return found


def _namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _root_is_read_only(pid: int) -> bool:
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return all("ro" in line[5].split(",") for line in lines if line[4] == "/")
