"""What a container sees as ``/``, without its code: a folder, and folders of the host that are shown in it.

Every root has the same places for what is the container's own (`furnish`). The driver fills them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from martlet.images.image import Image
from martlet.runtimes.interpreter import PREFIX
from martlet.runtimes.runtime import RUNTIME, RUNTIMES, Runtime
from martlet.sandbox import root
from martlet.sandbox.bundle import CODE, DOOR, SANDBOX

_FOLDERS = (CODE, DOOR, SANDBOX, RUNTIME, RUNTIMES, root.SCRATCH, "/proc", "/dev", "/etc")
_LINKS = {root.FUNCTION: f"{CODE}/function", root.DEPENDENCIES: f"{CODE}/dependencies"}
_FILES = ("/etc/resolv.conf", "/etc/hosts")


@dataclass(frozen=True, slots=True)
class Root:
    """See the module.

    Attributes:
        path: the folder that is ``/``. It is never written to, and has been furnished.
        binds: folders of the host that are shown in it, read-only, by where they are seen.
        runtime: the runtime it is for, with the paths that its interpreter and programs have inside.
        hold: a descriptor that keeps it from being removed; None: nobody removes it.
        image: whose folder ``path`` is; None: that of none.
    """

    path: Path
    binds: Mapping[str, str]
    runtime: Runtime
    hold: int | None = None
    image: Image | None = None

    @property
    def stands(self) -> bool:
        """Whether it is there still: somebody may have deleted it by hand."""
        return _inside(self.path, DOOR).is_dir()

    def shows(self, folder: Path) -> bool:
        """Whether it has the host's folder, at the same place."""
        return any(place == shown and folder.is_relative_to(place) for place, shown in self.binds.items())


class Roots(Protocol):
    """Where the roots of containers come from: one for each runtime."""

    async def of(self, runtime: Runtime) -> Root:
        """Returns the root for a runtime; makes it where it is needed for the first time.

        Raises:
            DriverError: there is none; the message says what to do.
        """


class HostRoots:
    """Roots that show the system folders and toolchains of this machine: they are there at once, without any image.

    Args:
        folder: where their skeletons are made.
        resolvers: the text of ``resolv.conf`` in them.
    """

    def __init__(self, folder: Path, resolvers: str) -> None:
        self._folder = folder.absolute()
        self._resolvers = resolvers

    async def of(self, runtime: Runtime) -> Root:
        """Makes the skeleton anew: the machine's folders may have changed."""
        return await asyncio.to_thread(self._make, runtime)

    def _make(self, runtime: Runtime) -> Root:
        path = self._folder / runtime.name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o755, parents=True)
        root.write_etc(path / "etc", self._resolvers)
        furnish(path)
        binds = {str(folder): str(folder) for folder in (PREFIX, *runtime.shown)}
        binds |= {f"/etc/{name}": f"/etc/{name}" for name in root.ETC_BOUND if Path("/etc", name).is_dir()}
        for folder in map(Path, root.SYSTEM):
            if folder.is_symlink():
                (path / folder.name).symlink_to(folder.readlink())
            elif folder.is_dir():
                binds[str(folder)] = str(folder)
        # What another one shows already has no place of its own to be shown at.
        binds = {place: folder for place, folder in binds.items() if not _is_below(place, binds)}
        for place in binds:
            if not Path(place).is_relative_to(root.SCRATCH):  # which every container has its own of
                _inside(path, place).mkdir(parents=True, exist_ok=True)
        open_to_all(path)
        return Root(path, binds, runtime)


def furnish(path: Path) -> None:
    """Gives a root at ``path`` the places of what is a container's own, as far as it lacks them. Raises OSError."""
    make_places(path, _FOLDERS, _FILES)
    for name, target in _LINKS.items():
        link = _inside(path, name)
        if not (link.is_symlink() and os.readlink(link) == target.lstrip("/")):
            _clear(link, keep=False)
            link.symlink_to(target.lstrip("/"))


def make_places(path: Path, folders: Iterable[str], files: Iterable[str]) -> None:
    """Makes sure that a root has folders and files, to mount others on. Raises OSError."""
    for folder in folders:
        place = _inside(path, folder)
        _clear(place, keep=place.is_dir())
        place.mkdir(exist_ok=True)
    for file in files:
        place = _inside(path, file)
        _clear(place, keep=place.is_file())
        place.touch()


def _clear(place: Path, *, keep: bool) -> None:
    """Removes what an image has at a place, unless it may stay; a link may lead out of the root, and never does."""
    if place.is_symlink() or (place.exists() and not place.is_dir() and not keep):
        place.unlink(missing_ok=True)  # another lane may do the same
    elif place.is_dir() and not keep:
        shutil.rmtree(place, ignore_errors=True)


def _inside(path: Path, place: str) -> Path:
    return path / place.lstrip("/")


def open_to_all(path: Path) -> None:
    """Lets users of containers read what is there, whatever umask the platform was started with."""
    for each in (path, *path.rglob("*")):
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() else 0o644)


def _is_below(place: str, others: Mapping[str, str]) -> bool:
    return any(place != other and Path(place).is_relative_to(other) for other in others)
