"""Roots of containers that are images, as ``system.base_image`` says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from martlet.drivers.driver import DriverError
from martlet.drivers.roots import Root, furnish
from martlet.errors import MartletError
from martlet.images.base import DEBIAN, BaseImage
from martlet.images.inside import Inside
from martlet.images.store import Hold, Images
from martlet.runtimes.runtime import Runtime

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
        self._base = BaseImage(images, base_image, limit)
        self._user = user
        self._say = say
        self._making: dict[str, asyncio.Task[Root]] = {}
        self._holds: list[Hold] = []

    async def of(self, runtime: Runtime) -> Root:
        """Returns the root for a runtime, the same one each time; makes it where there is none, or none any more."""
        making = self._making.get(runtime.name)
        if making is None or (making.done() and not _stands(making)):
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
            image = self._base.of(runtime, self._say)
            hold = self._base.images.hold(image, self._user)
            try:
                furnish(image.root)
                fitted = Inside(image.root).fitted(runtime)
            except BaseException:
                hold.close()
                raise
            self._holds.append(hold)
        except MartletError as error:
            raise DriverError(
                f"the base image {self._base.name} is no root for {runtime.name}: {error.detail}"
            ) from None
        debian = self._base.name == DEBIAN
        binds = {_CERTIFICATES: _CERTIFICATES} if debian and Path(_CERTIFICATES).is_dir() else {}
        return Root(image.root, binds, fitted, hold.descriptor, image)


def _stands(making: asyncio.Task[Root]) -> bool:
    return not making.cancelled() and making.exception() is None and making.result().stands
