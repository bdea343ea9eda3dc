"""The roots of runtimes as images of the engine: made once, named after what is in them."""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from martlet.drivers.docker.engine import Engine
from martlet.drivers.roots import Root, Roots
from martlet.runtimes import Runtime

REPOSITORY = "localhost/martlet-root"
"""``localhost`` belongs to no registry: an engine that lacks the image does not look for it elsewhere."""
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RootImage:
    """A root, and the image that it has become, by its full name."""

    root: Root
    image: str


class Images:
    """The images of one lane's runtimes.

    Args:
        roots: where roots come from.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
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
        with tempfile.TemporaryFile() as tar:
            digest = await asyncio.to_thread(_pack, root.path, cast(BinaryIO, tar))
            name = f"{REPOSITORY}:{digest}"
            if await engine.image(name) is None:
                tar.seek(0)
                await engine.import_image(name, cast(BinaryIO, tar))
        return RootImage(root, name)


def _pack(folder: Path, file: BinaryIO) -> str:
    """Writes the archive of a folder, the same bytes for the same content. Returns their digest."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(folder, arcname=".", filter=_plain)
    file.seek(0)
    digest = sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()[:32]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
