"""Giving up power: user, group, capabilities, and the power to get any back."""

from __future__ import annotations

import os
from pathlib import Path

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Process


def last_capability() -> int:
    """Returns the highest capability the kernel knows. Needs ``/proc``."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def forbid_new_privileges() -> None:
    """Makes setuid files and file capabilities powerless for this process and what it starts, for good."""
    syscalls.prctl(Process.SET_NO_NEW_PRIVILEGES, 1)


def empty_bounding_set(last: int) -> None:
    """Gives up every capability from 0 to ``last`` for whatever is executed later."""
    for capability in range(last + 1):
        syscalls.prctl(Process.DROP_BOUNDING_CAPABILITY, capability)


def become(identity: int) -> None:
    """Becomes the user and group ``identity``, in no other group and without any capability."""
    _change_user(identity)
    drop_capabilities()


def become_who_mounts(identity: int) -> None:
    """Does the same, but keeps of root's capabilities the one to mount, until `drop_capabilities`."""
    syscalls.prctl(Process.KEEP_CAPABILITIES, 1)
    _change_user(identity)
    syscalls.prctl(Process.KEEP_CAPABILITIES, 0)
    syscalls.keep_power_to_mount()


def _change_user(identity: int) -> None:
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)


def drop_capabilities() -> None:
    """Empties every set of capabilities that the process itself has; the user stays."""
    syscalls.clear_ambient_capabilities()
    syscalls.clear_capabilities()
