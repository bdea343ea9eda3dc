"""The roots of runtimes, and functions that are images, as images of the engine: named after what is in them."""

from __future__ import annotations

import asyncio
import fcntl
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from martlet.drivers.docker.engine import Engine, EngineError
from martlet.drivers.driver import DriverError
from martlet.drivers.roots import Root, Roots
from martlet.errors import MartletError
from martlet.images.image import Image
from martlet.images.store import Images as Store
from martlet.runtimes import Runtime
from martlet.sandbox.root import SCRATCH

SKELETONS = "localhost/martlet-root"
ROOTS, FUNCTIONS = f"{SKELETONS}/of", "localhost/martlet-function"
"""``localhost`` belongs to no registry: an engine that lacks the image does not look for it elsewhere."""
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RootImage:
    """A root, and the image that it has become, by its full name."""

    root: Root
    image: str


class Copies:
    """Images of the platform as the engine has them, once a container of one has started.

    Args:
        store: the platform's images.
        purpose: `ROOTS` or `FUNCTIONS`: the same image has other places for what is mounted as one and as the other.
        platform: what no other platform of this machine is called.
        lock: a file that all lanes of it know.
    """

    def __init__(self, store: Path, purpose: str, platform: str, lock: Path) -> None:
        self._store = store
        self._repository = f"{purpose}/{platform.strip('-')}"
        self._lock = lock

    async def of(self, image: Image, engine: Engine) -> str:
        """Returns what the engine calls an image; copies it where the engine lacks it.

        Raises:
            DriverError: the engine did not take it, or there is no room for the copy.
        """
        name = f"{self._repository}:{image.digest}"
        if await engine.image(name) is not None:
            return name
        # Two lanes that copy at once would leave the engine the first copy without a name.
        with await asyncio.to_thread(_turn, self._lock):
            if await engine.image(name) is None:
                await self.prune(engine)
                await self._copy(image, name, engine)
        return name

    async def prune(self, engine: Engine) -> None:
        """Removes the copies of images that the platform has no more."""
        for name in await engine.images():
            repository, _, digest = name.rpartition(":")
            if repository == self._repository and not (self._store / digest).exists():
                with suppress(EngineError):  # a container has it: next time
                    await engine.remove_image(name)

    async def _copy(self, image: Image, name: str, engine: Engine) -> None:
        try:
            with Store(self._store).work() as work, (work / "root.tar").open("w+b") as tar:
                await asyncio.to_thread(_write, image.root, tar, _as_seen)
                tar.seek(0)
                await engine.import_image(name, tar)
        except MartletError as error:
            raise DriverError(error.detail) from None


class Images:
    """The images of one lane's runtimes.

    Args:
        roots: where roots come from.
        copies: of the roots that are images of the platform; None: none is.
    """

    def __init__(self, roots: Roots, copies: Copies | None) -> None:
        self._roots = roots
        self._copies = copies
        self._made: dict[str, asyncio.Task[RootImage]] = {}

    async def of(self, runtime: Runtime, engine: Engine) -> RootImage:
        """Returns the image of a runtime's root; makes it where the engine lacks it.

        Raises:
            DriverError: there is no root, or the engine did not take it.
        """
        making = self._made.get(runtime.name)
        if making is None or (making.done() and (making.cancelled() or making.exception() is not None)):
            making = self._made[runtime.name] = asyncio.create_task(self._make(runtime, engine))
        return await asyncio.shield(making)

    def forget(self, runtime: Runtime) -> None:
        """Has the image made anew next time: the engine has it no more."""
        self._made.pop(runtime.name, None)

    async def _make(self, runtime: Runtime, engine: Engine) -> RootImage:
        root = await self._roots.of(runtime)
        if root.image is not None:
            assert self._copies is not None
            return RootImage(root, await self._copies.of(root.image, engine))
        with tempfile.TemporaryFile() as tar:
            digest = await asyncio.to_thread(_pack, root.path, cast(BinaryIO, tar))
            name = f"{SKELETONS}:{digest}"
            if await engine.image(name) is None:
                tar.seek(0)
                await engine.import_image(name, cast(BinaryIO, tar))
        return RootImage(root, name)


def _turn(lock: Path) -> BinaryIO:
    """Waits for the lock, and returns what holds it until it is closed."""
    file = lock.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _pack(folder: Path, file: BinaryIO) -> str:
    """Writes the archive of a folder, the same bytes for the same content. Returns their digest."""
    _write(folder, file, _plain)
    file.seek(0)
    digest = sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()[:32]


def _write(folder: Path, file: BinaryIO, change: Callable[[tarfile.TarInfo], tarfile.TarInfo]) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(folder, arcname=".", filter=change)


def _as_seen(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uname = member.gname = ""  # of the machine's users
    if member.name == f".{SCRATCH}":
        member.mode = 0o1777  # engines give what they mount over a folder the mode of that
    return member


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    return _as_seen(member)
