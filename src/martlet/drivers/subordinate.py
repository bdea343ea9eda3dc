"""Ids that are lent to a user who is not root: ``/etc/subuid`` and ``/etc/subgid``, mapped by ``newuidmap``."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from martlet.sandbox.users import Extent, IdMap

PER_LANE = 1024
"""Lent ids that a lane takes; one of them is the group of its zygotes."""
_LENT = {"newuidmap": Path("/etc/subuid"), "newgidmap": Path("/etc/subgid")}


class NotLent(Exception):
    """This user has no ids to give to sandboxes. The message says why, ``remedy`` what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def lent_to(lane: int, first: int) -> IdMap:
    """Returns the map of a user namespace with the lane's share of the ids that this user has been lent.

    Args:
        lane: number of the lane, from 0.
        first: what the first of them is called inside.

    Raises:
        NotLent: there are none, or too few.
    """
    users, groups = (_start(lane, program, file) for program, file in _LENT.items())
    count = PER_LANE - 1
    return IdMap(
        (Extent(0, os.geteuid(), 1), Extent(first, users + 1, count)),
        # The user's own group is left out: mapping it would take from cells the power to leave all groups.
        (Extent(0, groups, 1), Extent(first, groups + 1, count)),
        subordinate=True,
    )


def _start(lane: int, program: str, file: Path) -> int:
    if shutil.which(program) is None:
        raise NotLent(f"{program} is not installed", "install it (Debian and Fedora: the package uidmap)")
    start, count = max(_ranges(file), key=lambda found: found[1], default=(0, 0))
    if count < (lane + 1) * PER_LANE:
        name = _names()[0]
        raise NotLent(
            f"{file} lends {name} {count or 'no'} ids, and lane {lane} needs {(lane + 1) * PER_LANE}",
            f"add a line to {file}: {name}:FIRST:65536 (usermod --add-subuids, --add-subgids), of ids nobody has",
        )
    return start + lane * PER_LANE


def _ranges(file: Path) -> list[tuple[int, int]]:
    """Returns first id and number of each range that is lent to this user."""
    try:
        lines = [line.strip().split(":") for line in file.read_text().splitlines()]
    except OSError:
        return []
    mine = _names()
    return [(int(line[1]), int(line[2])) for line in lines if len(line) == 3 and line[0] in mine]


def _names() -> list[str]:
    """Returns what this user may be called in these files."""
    number = os.geteuid()
    try:
        return [pwd.getpwuid(number).pw_name, str(number)]
    except KeyError:
        return [str(number)]
