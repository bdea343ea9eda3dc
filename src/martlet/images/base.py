"""What ``system.base_image`` names: the image that a runtime has as its root in containers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from martlet.errors import Invalid, NotFound, Unavailable
from martlet.images.debian import Say, debian_root
from martlet.images.engine import PREFIXES, identity, import_from_engine
from martlet.images.image import Image
from martlet.images.oci import import_image
from martlet.images.store import Images
from martlet.runtimes.runtime import Runtime

HOST = "host"
"""No image: the machine's own folders."""
DEBIAN = "debian"


class BaseImage:
    """See the module.

    Args:
        images: of this machine.
        name: ``debian``, the name of an image, a path, or the image of an engine.
        limit: bytes that an image may have that is imported.
    """

    def __init__(self, images: Images, name: str, limit: int) -> None:
        self.images = images
        self.name = name
        self._limit = limit

    def of(self, runtime: Runtime, say: Say) -> Image:
        """Returns the image for a runtime; makes it where there is none yet, and waits while somebody else does.

        Args:
            runtime: of this machine.
            say: is told how it goes where one is made, line by line.

        Raises:
            Invalid: there can be none; the message says what to do.
            Unavailable: nobody has imported it, the disk is full, or what it is made of is out of reach.
        """
        if self.name == DEBIAN:
            return debian_root(self.images, runtime, say)
        if self.name.startswith(PREFIXES):
            kept = _kept_as(f"{self.name} {identity(self.name)}")
        elif "/" in self.name:
            kept = _kept_as(_state_of(Path(self.name)))
        else:
            return self._imported()
        try:
            return self.images.find(kept)
        except NotFound:
            say(f"importing {self.name}")
        if self.name.startswith(PREFIXES):
            return import_from_engine(self.images, kept, self.name, self._limit)
        return import_image(self.images, kept, Path(self.name), self.name, self._limit)

    def _imported(self) -> Image:
        try:
            return self.images.find(self.name)
        except NotFound as error:
            raise Unavailable(f"system.base_image: {error.detail}") from None


def _state_of(path: Path) -> str:
    """Returns what tells an archive or a folder from what it was before."""
    try:
        found = (path / "index.json" if path.is_dir() else path).stat()
    except OSError as error:
        raise Invalid(
            f"system.base_image: {path} cannot be read: {error.strerror}", field="system.base_image"
        ) from None
    return f"{path.absolute()} {found.st_mtime_ns} {found.st_size}"


def _kept_as(source: str) -> str:
    """Returns the name of the image that something else is imported as."""
    return f"base-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
