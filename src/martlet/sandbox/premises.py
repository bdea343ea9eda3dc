"""What a keeper has of folders and mounts: what all of its containers are shown, and what each of them has.

It is in a mount namespace of the keeper's own, and gone with the last of the containers too:

    folder/dev sandbox hosts …          what all containers are shown; in sandbox, what they start as
    folder/cells/<id>/code/…            where code is mounted once the container runs, which sees it by propagation
    folder/cells/<id>/tmp               its scratch space
    folder/cells/<id>/bundle state …    the engine's
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from martlet.sandbox import bundle, network, root, syscalls
from martlet.sandbox.bundle import PAUSE, Frame, Own
from martlet.sandbox.engine import BUNDLE, LOG, PID, STATE
from martlet.sandbox.inside import FILTER
from martlet.sandbox.moves import find_tree
from martlet.sandbox.seccomp import bpf
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone, Mount, MountAttribute

_CELLS, _PROC, _DEV, _SANDBOX, _HOSTS, _RESOLVERS = "cells", "proc", "dev", "sandbox", "hosts", "resolv.conf"
_FUNCTION, _DEPENDENCIES = "function", "dependencies"
_CELL_SCRATCH = 1024 * 1024
_PROC_FLAGS = Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC
_DEV_FLAGS = Mount.NO_SUID | Mount.NO_EXEC
_PACKAGE = MountAttribute.READ_ONLY | MountAttribute.NO_SUID | MountAttribute.NO_DEV


@dataclass(frozen=True, slots=True)
class Tenant:
    """What a container is given of its own.

    Attributes:
        cell: its id.
        identity: its user and group.
        network: the name of its network.
        namespace: a descriptor of that, where somebody has made it.
        door: the folder that it shares with the lane.
        group: its cgroup, for an engine that makes it; empty: it stays where it is.
    """

    cell: str
    identity: int
    network: str
    namespace: int | None
    door: str
    group: str


class Premises:
    """See the module.

    Args:
        folder: an empty directory; what is made there nobody else sees.
        packages: the folder of all unpacked packages.
    """

    def __init__(self, folder: str, packages: str) -> None:
        self._folder = Path(folder)
        self._packages = packages

    def make(self, resolvers: str, *, one_hierarchy: bool) -> None:
        """Makes what all containers are shown, in a mount namespace that this process moves into. Raises OSError.

        Args:
            resolvers: the text of ``resolv.conf``, but for those who share the network of the host.
            one_hierarchy: whether the engine works only where it does not see both kinds of cgroup trees.
        """
        syscalls.unshare(Clone.MOUNT)
        syscalls.make_private()
        folder = str(self._folder)
        syscalls.mount("tmpfs", folder, Mount.NO_SUID, "mode=700")
        syscalls.make_shared(folder)
        for name in (_PROC, _SANDBOX, _CELLS):
            (self._folder / name).mkdir()
        syscalls.bind("/proc", self.proc)
        syscalls.mount("proc", "/proc", _PROC_FLAGS)
        if one_hierarchy:
            _show_one_hierarchy()
        _make_dev(self._folder / _DEV)
        (self._folder / _HOSTS).write_text(root.HOSTS)
        (self._folder / _RESOLVERS).write_text(resolvers)
        (self._folder / _SANDBOX / FILTER).write_bytes(bpf.compile(Policy.load()))
        own = self._folder / _SANDBOX / "martlet" / "sandbox"
        own.mkdir(parents=True)
        syscalls.bind(os.path.dirname(__file__), str(own))

    def add_program(self, program: bytes) -> None:
        """Adds `PAUSE` to what containers see of the sandbox."""
        file = self._folder / _SANDBOX / PAUSE
        file.write_bytes(program)
        file.chmod(0o755)

    @property
    def proc(self) -> str:
        """Where the host's ``/proc`` is to be seen."""
        return f"{self._folder}/{_PROC}"

    def of(self, cell: str) -> Path:
        """Returns the folder of a container."""
        return self._folder / _CELLS / cell

    def admit(self, tenant: Tenant, frame: Frame, *, own_kernel: bool) -> None:
        """Makes all that the engine is told of: the bundle, the scratch space, where code will be. Raises OSError."""
        folder = self.of(tenant.cell)
        for name in (BUNDLE, STATE, root.SCRATCH[1:], f"code/{_FUNCTION}", f"code/{_DEPENDENCIES}"):
            (folder / name).mkdir(parents=True)
        scratch = f"{folder}{root.SCRATCH}"
        root.mount_space(scratch, _CELL_SCRATCH)
        namespace = "" if tenant.network == network.NONE else None
        if tenant.namespace is not None:
            # As every program names it here, also one that has not inherited it.
            namespace = f"/proc/{os.getpid()}/fd/{tenant.namespace}"
        of_host = tenant.network == network.HOST
        own = Own(
            tenant.identity,
            namespace,
            binds={
                "/dev": f"{self._folder}/{_DEV}",
                bundle.SANDBOX: f"{self._folder}/{_SANDBOX}",
                bundle.CODE: f"{folder}/code",
                "/etc/hosts": f"{self._folder}/{_HOSTS}",
                "/etc/resolv.conf": "/etc/resolv.conf" if of_host else f"{self._folder}/{_RESOLVERS}",
            },
            writable={root.SCRATCH: scratch, bundle.DOOR: tenant.door},
            group=tenant.group,
        )
        document = bundle.make(frame, own, own_kernel=own_kernel)
        (folder / BUNDLE / "config.json").write_text(json.dumps(document))

    def show(self, cell: str, code: str, dependencies: str | None, scratch: int) -> None:
        """Shows a container its packages, by their names, and has its scratch space hold so many bytes.

        Raises:
            OSError: there is no such package.
        """
        folder = self.of(cell)
        for place, name in ((_FUNCTION, code), (_DEPENDENCIES, dependencies)):
            if name is not None:
                syscalls.show(f"{self._packages}/{name}", f"{folder}/code/{place}", _PACKAGE)
        root.resize_space(f"{folder}{root.SCRATCH}", scratch)

    def clear(self, cell: str) -> None:
        """Removes what a container had, also one that has not come to run; the engine would do no more."""
        folder = self.of(cell)
        for mounted in (f"code/{_FUNCTION}", f"code/{_DEPENDENCIES}", root.SCRATCH[1:]):
            with contextlib.suppress(OSError):  # nothing was mounted
                syscalls.unmount(str(folder / mounted))
        shutil.rmtree(folder, ignore_errors=True)

    def process_of(self, cell: str) -> int | None:
        """Returns the process that an engine says it has started; None where it says nothing."""
        try:
            return int((self.of(cell) / PID).read_text())
        except (OSError, ValueError):
            return None

    def last_words(self, cell: str) -> str:
        """Returns what an engine has written last about a container."""
        try:
            return (self.of(cell) / LOG).read_text(errors="replace").strip().rpartition("\n")[2][-500:]
        except OSError:
            return ""


def _make_dev(folder: Path) -> None:
    """Makes the devices of all containers, where nobody can make a file, whatever an engine mounts it as."""
    folder.mkdir()
    syscalls.mount("tmpfs", str(folder), _DEV_FLAGS, "mode=755")
    root.fill_dev(folder)
    syscalls.mount("tmpfs", str(folder), Mount.REMOUNT | Mount.READ_ONLY | _DEV_FLAGS)


def _show_one_hierarchy() -> None:
    """Takes the v2 tree away where limits are in the other ones."""
    mounts = Path("/proc/self/mountinfo").read_text()
    tree = find_tree(mounts)
    if tree is not None and " - cgroup " in mounts:
        syscalls.unmount(tree[0])
