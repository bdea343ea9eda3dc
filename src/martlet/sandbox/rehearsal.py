"""Tries on this host what a sandbox needs, in throw-away children, and says what the kernel refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from martlet.sandbox import landlock, network, privileges, syscalls
from martlet.sandbox.landlock import Ruleset
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone, Mount, MountAttribute

FILTER = "system call filter"
LANDLOCK = "Landlock"


def _private_root() -> None:
    syscalls.unshare(Clone.MOUNT)
    syscalls.make_private()
    syscalls.mount("tmpfs", "/tmp", Mount.NO_SUID | Mount.NO_DEV)  # noqa: S108  (in a namespace of its own)
    syscalls.mount_setattr("/tmp", MountAttribute.READ_ONLY)  # noqa: S108


def _own_user() -> None:
    os.setgroups([])
    os.setresgid(1, 1, 1)
    os.setresuid(1, 1, 1)


def _filtered_calls() -> None:
    privileges.forbid_new_privileges()
    Filter(Policy.load()).load()
    with suppress(PermissionError):
        syscalls.unshare(Clone(0))  # nothing, which everybody may do
        raise OSError("a system call that the filter refuses was made")


def _restricted_files() -> None:
    if (version := landlock.version()) == 0:
        raise OSError("the kernel does not have it in use")
    privileges.forbid_new_privileges()
    rules = Ruleset(version)
    rules.allow("/", landlock.READ)
    rules.enforce()
    with suppress(PermissionError), open("/dev/null", "wb"):
        raise OSError("a file that no rule allows was written to")


STEPS: dict[str, Callable[[], None]] = {
    "mount namespace": _private_root,
    "PID namespace": lambda: syscalls.unshare(Clone.PID),
    "IPC namespace": lambda: syscalls.unshare(Clone.IPC),
    "UTS namespace": lambda: syscalls.unshare(Clone.UTS),
    "network namespace": lambda: network.enter(network.NONE),
    "user of its own": _own_user,
    LANDLOCK: _restricted_files,
    FILTER: _filtered_calls,
}


def rehearse() -> dict[str, str]:
    """Returns the names of the `STEPS` that fail on this host, each with the kernel's words.

    The process must have one thread only: it forks.
    """
    refused = {}
    for name, step in STEPS.items():
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                step()
            except OSError as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as said:
            words = said.read().decode()
        os.waitpid(pid, 0)
        if words:
            refused[name] = words
    return refused


def main() -> None:
    """Writes what `rehearse` returns as JSON."""
    json.dump(rehearse(), sys.stdout)
