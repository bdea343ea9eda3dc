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
from dataclasses import dataclass
from pathlib import Path

from martlet.sandbox import root, syscalls
from martlet.sandbox.bundle import CODE
from martlet.sandbox.syscalls import Clone, MountAttribute

_ATTRIBUTES = MountAttribute.READ_ONLY | MountAttribute.NO_SUID | MountAttribute.NO_DEV
_NAMESPACES = {Clone.MOUNT: "mnt", Clone.UTS: "uts"}


@dataclass(frozen=True, slots=True)
class Furniture:
    """What a container gets when it gets code.

    Attributes:
        code: the package, a folder of the host.
        dependencies: likewise, or None.
        scratch: bytes that ``/tmp`` may hold.
        hostname: what the machine is called inside; None: as before, because it is the host's.
    """

    code: Path
    dependencies: Path | None
    scratch: int
    hostname: str | None


class Visits:
    """See the module. Everything is done by one thread, which goes home after each visit."""

    def __init__(self) -> None:
        # What threads share of root and directory would keep this one from entering a mount namespace.
        unshare = lambda: syscalls.unshare(Clone.FILES)  # noqa: E731
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="visits", initializer=unshare)

    async def furnish(self, pid: int, furniture: Furniture) -> None:
        """Gives the container whose first process is ``pid`` its code and the rest.

        Raises:
            OSError: the kernel refused, or there is no such process.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, _furnish, pid, furniture)

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False)


def _furnish(pid: int, furniture: Furniture) -> None:
    packages = {"function": furniture.code, "dependencies": furniture.dependencies}
    with ExitStack() as stack:
        trees = {}
        for name, package in packages.items():
            if package is not None:
                trees[name] = syscalls.open_tree(str(package), _ATTRIBUTES)
                stack.callback(os.close, trees[name])
        stack.enter_context(_inside(pid))
        for name, tree in trees.items():
            syscalls.move_mount(tree, f"{CODE}/{name}")
        root.resize_scratch(furniture.scratch)
        if furniture.hostname is not None:
            socket.sethostname(furniture.hostname)


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
