"""What a guest mounts, and what its cell sees of that: what a cell of the process rung sees, and no more.

The agent sees all of its machine. The cell has a PID namespace and mounts of its own: no process but its own, no device
but harmless ones, no sysfs, nothing that the agent works with, and its code read-only.
"""

from __future__ import annotations

import os
from pathlib import Path

from martlet.sandbox import root, syscalls
from martlet.sandbox.network import enable_loopback
from martlet.sandbox.syscalls import Clone, Mount, MountAttribute

RUN, GROUP = "/run", "/sys/fs/cgroup/function"
"""Where the agent works, and the cgroup of the cell."""
SHOWN = f"{RUN}/shown"
"""What the cell sees in place of `RUN`."""
_DEVICES, _NOTHING = f"{RUN}/dev", f"{RUN}/nothing"
_KERNEL = Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC
_READ_ONLY = MountAttribute.READ_ONLY | MountAttribute.NO_SUID | MountAttribute.NO_DEV
SCRATCH = 1024 * 1024
"""Bytes that the cell's ``/tmp`` may hold before it has code."""


def make() -> None:
    """Mounts what the agent sees, and makes the cgroup of the cell. Raises OSError."""
    for kind, at in (("proc", "/proc"), ("sysfs", "/sys"), ("cgroup2", "/sys/fs/cgroup")):
        syscalls.mount(kind, at, _KERNEL)
    syscalls.mount("devtmpfs", "/dev", Mount.NO_SUID | Mount.NO_EXEC)
    syscalls.mount("tmpfs", RUN, _KERNEL, "mode=755,size=1m")
    for folder in (_DEVICES, SHOWN, _NOTHING):
        os.mkdir(folder)
    root.fill_dev(Path(_DEVICES))
    root.mount_space(root.SCRATCH, SCRATCH)
    for folder in (root.FUNCTION, root.DEPENDENCIES):
        syscalls.mount("tmpfs", folder, Mount.NO_SUID | Mount.NO_DEV, "mode=755")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory +pids")
    os.mkdir(GROUP)
    Path(GROUP, "memory.oom.group").write_text("1")
    # A function that takes more than its limit is ended for it, whatever the machine has.
    Path("/proc/sys/vm/overcommit_memory").write_text("1")
    # The kernel looks twice a second whether there is something to do there.
    Path("/proc/sys/vm/compaction_proactiveness").write_text("0")
    enable_loopback()


def enter() -> None:
    """Leaves a process, the first of its PID namespace, what the cell sees. Takes power. Raises OSError."""
    syscalls.unshare(Clone.MOUNT | Clone.IPC)
    syscalls.make_private()
    syscalls.mount("proc", "/proc", _KERNEL)
    for folder, instead in (("/dev", _DEVICES), ("/sys", _NOTHING), (RUN, SHOWN)):
        syscalls.bind(instead, folder)
        syscalls.mount_setattr(folder, MountAttribute.READ_ONLY | MountAttribute.NO_SUID)
    for folder in (root.FUNCTION, root.DEPENDENCIES):  # which the agent fills
        syscalls.mount_setattr(folder, _READ_ONLY)
