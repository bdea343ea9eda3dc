"""What a former life of the platform may have left of its sandboxes, and how it is ended without its lanes."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from martlet.drivers.cell import empty
from martlet.drivers.zygote import Zygote
from martlet.sandbox.cgroups import Group, usable_group

ZYGOTE = ".zygote"
"""How the names of the sockets end on which zygotes listen, in the directory of their lane."""


def group_name(run: Path, lane: int | str) -> str:
    """Returns the name of a lane's cgroup: no two platforms of this machine share a run directory."""
    return f"martlet-{blake2b(bytes(run.absolute()), digest_size=4).hexdigest()}-lane-{lane}"


async def sweep(run: Path) -> None:
    """Ends the zygotes that wait for a lane of this run directory, their cells, and all that is in its cgroups.

    The lanes themselves must be gone.

    Raises:
        DriverError: processes do not end; the message says where they are.
    """
    for at in _sockets(run):
        zygote = await Zygote.find(at, lambda *_: None)
        if zygote is not None:
            await zygote.close()
    for group in _groups(run):
        await empty(group)


def _sockets(run: Path) -> list[Path]:
    return [*run.glob(f"lane-*/*{ZYGOTE}")]


def _groups(run: Path) -> list[Group]:
    top = usable_group()
    if top is None:
        return []
    return [top.below(name) for name in top.names() if name.startswith(group_name(run, ""))]
