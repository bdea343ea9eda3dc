"""Roots of containers that are images, as ``system.base_image`` says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from martlet.drivers.driver import DriverError
from martlet.drivers.roots import Root, furnish
from martlet.errors import MartletError, NotFound
from martlet.images.debian import debian_root
from martlet.images.engine import PREFIXES, import_from_engine
from martlet.images.image import Image
from martlet.images.inside import Inside
from martlet.images.oci import import_image
from martlet.images.store import Hold, Images
from martlet.runtimes.runtime import Runtime

DEBIAN = "debian"
_CERTIFICATES = "/etc/ssl/certs"


class ImageRoots:
    """See the module. An image is held, so that nobody removes it, until this is closed.

    Args:
        images: of this machine.
        base_image: ``debian``, the name of an image, a path, or the image of an engine.
        user: who holds them, for people (``lane-0``).
        limit: bytes that an image may have that is imported.
        say: is told how it goes where a root is made, line by line.
    """

    def __init__(
        self, images: Images, base_image: str, user: str, limit: int, say: Callable[[str], None]
    ) -> None:
        self._images = images
        self._base = base_image
        self._user = user
        self._limit = limit
        self._say = say
        self._making: dict[str, asyncio.Task[Root]] = {}
        self._holds: list[Hold] = []

    async def of(self, runtime: Runtime) -> Root:
        """Returns the root for a runtime, the same one each time; makes it where it is needed for the first time."""
        making = self._making.get(runtime.name)
        if making is None or (making.done() and (making.cancelled() or making.exception() is not None)):
            making = self._making[runtime.name] = asyncio.create_task(asyncio.to_thread(self._make, runtime))
        return await asyncio.shield(making)

    def close(self) -> None:
        """Lets go of the images."""
        for hold in self._holds:
            hold.close()
        self._holds.clear()
        self._making.clear()

    def _make(self, runtime: Runtime) -> Root:
        try:
            image = self._image(runtime)
            hold = self._images.hold(image, self._user)
            try:
                furnish(image.root)
                fitted = Inside(image.root).fitted(runtime)
            except BaseException:
                hold.close()
                raise
            self._holds.append(hold)
        except MartletError as error:
            raise DriverError(
                f"the base image {self._base} is no root for {runtime.name}: {error.detail}"
            ) from None
        binds = (
            {_CERTIFICATES: _CERTIFICATES} if self._base == DEBIAN and Path(_CERTIFICATES).is_dir() else {}
        )
        return Root(image.root, binds, fitted)

    def _image(self, runtime: Runtime) -> Image:
        if self._base == DEBIAN:
            return debian_root(self._images, runtime, self._say)
        if self._base.startswith(PREFIXES):
            return import_from_engine(self._images, _kept_as(self._base), self._base, self._limit)
        if "/" in self._base:
            return self._of_path(Path(self._base))
        return self._images.find(self._base)

    def _of_path(self, path: Path) -> Image:
        """Imports an archive or a folder, once as it is."""
        try:
            found = (path / "index.json" if path.is_dir() else path).stat()
        except OSError as error:
            raise DriverError(f"system.base_image: {path} cannot be read: {error.strerror}") from None
        name = _kept_as(f"{path.absolute()} {found.st_mtime_ns} {found.st_size}")
        try:
            return self._images.find(name)
        except NotFound:
            self._say(f"importing {path}")
            return import_image(self._images, name, path, str(path), self._limit)


def _kept_as(source: str) -> str:
    """Returns the name of the image that something else is imported as."""
    return f"base-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
