"""What takes power inside of a container, done from outside, by a thread that visits its namespaces.

The mount of a package can be put into a container that runs already (`move_mount`); the engine need not know of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from martlet.sandbox import root, syscalls
from martlet.sandbox.bundle import CODE
from martlet.sandbox.launcher import Confinement
from martlet.sandbox.syscalls import Clone, MountAttribute

_ATTRIBUTES = MountAttribute.READ_ONLY | MountAttribute.NO_SUID | MountAttribute.NO_DEV
_NAMESPACES = {Clone.MOUNT: "mnt", Clone.UTS: "uts"}


class Visits:
    """See the module. Everything is done by one thread, which goes home after each visit."""

    def __init__(self) -> None:
        # What threads share of root and directory would keep this one from entering a mount namespace.
        unshare = lambda: syscalls.unshare(Clone.FILES)  # noqa: E731
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="visits", initializer=unshare)

    async def furnish(self, pid: int, confinement: Confinement, *, named: bool) -> None:
        """Gives the container whose first process is ``pid`` its code, space, and, if it is ``named``, its host name.

        The packages of the confinement are folders of the host.

        Raises:
            OSError: the kernel refused, or there is no such process.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, _furnish, pid, confinement, named)

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False)


def _furnish(pid: int, confinement: Confinement, named: bool) -> None:
    packages = {"function": confinement.code, "dependencies": confinement.dependencies}
    with ExitStack() as stack:
        trees = {}
        for name, package in packages.items():
            if package is not None:
                trees[name] = syscalls.open_tree(package, _ATTRIBUTES)
                stack.callback(os.close, trees[name])
        stack.enter_context(_inside(pid))
        for name, tree in trees.items():
            syscalls.move_mount(tree, f"{CODE}/{name}")
        root.resize_scratch(confinement.scratch)
        if named:
            socket.sethostname(confinement.hostname)


@contextmanager
def _inside(pid: int) -> Iterator[None]:
    """Moves the thread into the namespaces of a process, and home again."""
    with ExitStack() as stack:

        def opened(path: str) -> int:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return descriptor

        home = {kind: opened(f"/proc/thread-self/ns/{name}") for kind, name in _NAMESPACES.items()}
        there = {kind: opened(f"/proc/{pid}/ns/{name}") for kind, name in _NAMESPACES.items()}
        for kind in _NAMESPACES:
            stack.callback(syscalls.setns, home[kind], kind)
        for kind, descriptor in there.items():
            syscalls.setns(descriptor, kind)
        yield


@contextmanager
def network_of(pid: int) -> Iterator[int]:
    """Lends a descriptor of the network namespace of a process. Raises OSError."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
