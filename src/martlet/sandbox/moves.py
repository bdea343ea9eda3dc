"""Moving processes between cgroups without waiting for every core.

The kernel makes a process that changes its cgroup wait until no core forks, which takes milliseconds when it happens
alone. The mount option ``favordynmods`` of the v2 tree (Linux 6.0) lets it be quick, for v1 trees too, and costs forks
and exits a little. It is the machine's, and stays until somebody mounts the tree anew.
"""

from __future__ import annotations

from pathlib import Path

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Mount

OPTION = "favordynmods"
_FLAGS = {"ro": Mount.READ_ONLY, "nosuid": Mount.NO_SUID, "nodev": Mount.NO_DEV, "noexec": Mount.NO_EXEC}


def quicken() -> bool:
    """Lets processes move quickly from now on; returns whether they do. Needs root of the machine."""
    tree = find_tree(_mounts())
    if tree is None:
        return False
    where, flags, options = tree
    if OPTION in options:
        return True
    try:
        syscalls.mount("cgroup2", where, Mount.REMOUNT | flags, ",".join([*options, OPTION]))
    except OSError:
        return False  # a kernel before 6.0, or no root
    changed = find_tree(_mounts())
    return changed is not None and OPTION in changed[2]  # in a container the kernel overlooks the option


def find_tree(mounts: str) -> tuple[str, Mount, list[str]] | None:
    """Returns where the v2 tree is mounted, with the flags of the mount and the options of the tree, or None.

    Args:
        mounts: the text of ``/proc/self/mountinfo``.
    """
    for line in mounts.splitlines():
        mount, _, tree = line.partition(" - ")
        kind, _, options = tree.split(" ", 2)
        if kind == "cgroup2":
            where, own = mount.split(" ")[4:6]
            flags = sum((_FLAGS.get(flag, Mount(0)) for flag in own.split(",")), Mount(0))
            return where, flags, [option for option in options.split(",") if option not in ("rw", "ro")]
    return None


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()
