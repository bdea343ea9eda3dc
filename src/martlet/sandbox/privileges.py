"""Giving up power: user, group, capabilities, and the power to get any back."""

from __future__ import annotations

import os
from pathlib import Path

from martlet.sandbox import syscalls
from martlet.sandbox.script import Calls, Script, Slot
from martlet.sandbox.syscalls import Process

_CLEAR_ALL = 4


def last_capability() -> int:
    """Returns the highest capability the kernel knows. Needs ``/proc``."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def forbid_new_privileges(calls: Calls = syscalls) -> None:
    """Makes setuid files and file capabilities powerless for this process and what it starts, for good."""
    calls.prctl(Process.SET_NO_NEW_PRIVILEGES, 1)


def empty_bounding_set(last: int, calls: Calls = syscalls) -> None:
    """Gives up every capability from 0 to ``last`` for whatever is executed later."""
    for capability in range(last + 1):
        calls.prctl(Process.DROP_BOUNDING_CAPABILITY, capability)


def become(identity: int) -> None:
    """Becomes the user and group ``identity``, in no other group and without any capability."""
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)
    drop_capabilities()


def become_by(script: Script, identity: Slot) -> None:
    """Writes down what `become` does."""
    _become_by(script, identity)
    drop_capabilities(script)


def become_who_mounts(script: Script, identity: Slot) -> None:
    """Writes down the same, but keeps of root's capabilities the one to mount, and to name the host
    (``CAP_SYS_ADMIN``), until `drop_capabilities`."""
    script.prctl(Process.KEEP_CAPABILITIES, 1)
    _become_by(script, identity)
    script.prctl(Process.KEEP_CAPABILITIES, 0)
    script.call("capset", syscalls.CAPABILITIES_OF_THIS_PROCESS, syscalls.POWER_TO_MOUNT)


def drop_capabilities(calls: Calls = syscalls) -> None:
    """Empties every set of capabilities that the process itself has; the user stays."""
    calls.prctl(Process.AMBIENT_CAPABILITIES, _CLEAR_ALL)
    calls.clear_capabilities()


def _become_by(script: Script, identity: Slot) -> None:
    script.call("setgroups", 0, None)
    script.call("setresgid", identity, identity, identity)
    script.call("setresuid", identity, identity, identity)
