"""What is made once and kept: folders of files that never change, which appear whole or not at all.

What a thing was made from is part of its name. When one is made anew, those that it replaces go, unless somebody has
asked for them within a day: another version of Martlet, say, with the same folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from martlet.images.store import said_when_full
from martlet.package.staging import remove_tree

_LOCK, _WORK = ".lock", ".work-"
_DAY = 86_400.0
_libc = ctypes.CDLL(None, use_errno=True)

Build = Callable[[Path], None]
"""Fills an empty folder."""


class Store:
    """See the module. Of several that ask for one thing, in this process or others, one makes it and the others wait.

    Args:
        folder: where it is; made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, name: str, version: str, build: Build) -> Path:
        """Returns the folder of this version of a thing; has it built where there is none.

        Raises:
            Unavailable: the disk is full.
        """
        found = self.folder / f"{name}-{version}"
        with suppress(FileNotFoundError):
            os.utime(found)
            return found
        with self._turn(), said_when_full(self.folder):
            if not found.is_dir():
                for left in self.folder.glob(
                    f"{_WORK}*"
                ):  # by one who was killed: whoever works has the turn
                    remove_tree(left)
                work = self.folder / f"{_WORK}{secrets.token_hex(8)}"
                work.mkdir(mode=0o755)
                self._clear(name)
                try:
                    build(work)
                    _reach_disk(work)
                    work.rename(found)
                finally:
                    if work.exists():
                        remove_tree(work)
        return found

    def _clear(self, name: str) -> None:
        """Removes versions of a thing that nobody has asked for of late."""
        for other in self.folder.glob(f"{name}-*"):
            if time.time() - other.stat().st_mtime > _DAY:
                gone = other.rename(self.folder / f"{_WORK}{secrets.token_hex(8)}")
                remove_tree(gone)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _reach_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
