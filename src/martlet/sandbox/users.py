"""User namespaces: where power over sandboxes, and user ids for them, come from without root.

Whoever makes a user namespace is root in it, over what belongs to it and over the ids that are mapped into it. A
zygote enters one, and with that may make every other kind of namespace, as root does on the host. Ids for cells come
from a range that is mapped into it, or, where there is one id only, each cell makes a namespace of its own and is
somebody else inside.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Clone


@dataclass(frozen=True, slots=True)
class Extent:
    """The ``count`` ids from ``inside`` on are those from ``outside`` on in the namespace around."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"


@dataclass(frozen=True, slots=True)
class IdMap:
    """Which ids a user namespace has.

    Attributes:
        users: of users; the maker's own is 0 inside.
        groups: of groups.
        subordinate: whether most of them are lent to the maker in ``/etc/subuid`` and ``/etc/subgid``: then the
            setuid programs ``newuidmap`` and ``newgidmap`` must map them.
        groups_fixed: whether the groups that a process is in can never change; the price of mapping a group
            without having power over any other.
    """

    users: tuple[Extent, ...]
    groups: tuple[Extent, ...]
    subordinate: bool = False
    groups_fixed: bool = False

    @classmethod
    def single(cls) -> Self:
        """Returns the map that everybody may use: the caller's own user and group."""
        return cls((Extent(0, os.geteuid(), 1),), (Extent(0, os.getegid(), 1),), groups_fixed=True)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of a map."""
        users, groups = (tuple(Extent(**extent) for extent in document[kind]) for kind in ("users", "groups"))
        return cls(users, groups, document["subordinate"], document["groups_fixed"])

    def write(self, pid: int) -> None:
        """Gives the ids to the namespace of a process. The caller is in the namespace around it.

        Raises:
            OSError: these ids cannot be had; it says why.
        """
        if self.groups_fixed:
            Path(f"/proc/{pid}/setgroups").write_text("deny")
        for program, file, extents in (
            ("newuidmap", "uid_map", self.users),
            ("newgidmap", "gid_map", self.groups),
        ):
            if self.subordinate:
                _execute(program, pid, extents)
            else:
                Path(f"/proc/{pid}/{file}").write_text("\n".join(map(str, extents)))


def enter(ids: IdMap) -> None:
    """Moves the process into a new user namespace and makes it root there. It must have one thread only.

    Raises:
        OSError: the kernel allows no user namespace, or not these ids.
    """
    go, made = os.pipe()
    heard, said = os.pipe()
    maker, helper = os.getpid(), os.fork()
    if helper == 0:
        _map(ids, maker, go, made, said)
    os.close(go)
    os.close(said)
    try:
        syscalls.unshare(Clone.USER)
        os.write(made, b"0")
    finally:
        os.close(made)
        with open(heard, "rb") as words:
            refused = words.read().decode()
        os.waitpid(helper, 0)
    if refused:
        raise OSError(refused)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def nest(identity: int) -> None:
    """Moves the process, root of a namespace, into a new one whose only user and group is ``identity``.

    Outside it stays who it is. It has every capability over the new namespace. Needs ``/proc``.
    """
    syscalls.unshare(Clone.USER)
    Path("/proc/self/setgroups").write_text("deny")
    for file in ("uid_map", "gid_map"):
        Path("/proc/self", file).write_text(str(Extent(identity, 0, 1)))


def _map(ids: IdMap, maker: int, go: int, made: int, said: int) -> None:
    """In a child that stays in the namespace around: maps the ids once there is a namespace, then ends."""
    os.close(made)
    try:
        if os.read(go, 1):
            ids.write(maker)
    except OSError as error:
        os.write(said, str(error).encode())
    finally:
        os._exit(0)


def _execute(program: str, pid: int, extents: Iterable[Extent]) -> None:
    arguments = [word for extent in extents for word in str(extent).split()]
    done = subprocess.run([program, str(pid), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.stderr.strip() or f"{program} ended with {done.returncode}")
