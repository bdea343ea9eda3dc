"""What a former life of the platform may have left of its sandboxes, and how it is ended without its lanes."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from martlet.drivers.cell import empty
from martlet.drivers.keeper import Keeper
from martlet.drivers.parent import Parent
from martlet.drivers.zygote import Zygote
from martlet.sandbox.cgroups import Group
from martlet.sandbox.hierarchies import find_everywhere, usable_group

_MACHINE = 0xEFFFFFFC
"""The number of the namespace of processes that a machine starts with (the kernel's PROC_PID_INIT_INO)."""
_PARENTS: tuple[type[Parent], ...] = (Zygote, Keeper)


def group_name(run: Path, lane: int | str) -> str:
    """Returns the name of a lane's cgroup.

    No two platforms of this machine share a run directory, but those in containers may share a tree of cgroups in which
    each has the same one, as privileged pods do: there the container's own name tells them apart.
    """
    whose = bytes(run.absolute())
    if Path("/proc/self/ns/pid").stat().st_ino != _MACHINE:
        whose += b"@" + os.uname().nodename.encode()
    return f"martlet-{blake2b(whose, digest_size=4).hexdigest()}-lane-{lane}"


def socket_name(name: str, parent: type[Parent]) -> str:
    """Returns the name of the socket on which a parent listens, in the directory of its lane: that for a runtime is
    called as this is."""
    return f"{name}.{parent.program}"


async def sweep(run: Path) -> None:
    """Ends the parents that wait for a lane of this run directory, their cells, and all that is in its cgroups.

    The lanes themselves must be gone.

    Raises:
        DriverError: processes do not end; the message says where they are.
    """
    for kind in _PARENTS:
        for at in _sockets(run, kind):
            parent = await kind.find(at, lambda *_: None)
            if parent is not None:
                await parent.close()
    for group in _groups(run):
        await empty(group)


def _sockets(run: Path, parent: type[Parent]) -> list[Path]:
    return [*run.glob(socket_name("lane-*/*", parent))]


def _groups(run: Path) -> list[Group]:
    """Returns what there is in the trees that limit something, and then in all: engines make groups there too."""
    everywhere = find_everywhere(Path("/proc/self/mountinfo").read_text())
    tops = [top for top in (usable_group(), everywhere) if top is not None]
    return [top.below(name) for top in tops for name in top.names() if name.startswith(group_name(run, ""))]
