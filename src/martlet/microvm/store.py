"""What is made once and kept: folders of files that never change, which appear whole or not at all.

What a thing was made from is part of its name, and what it holds is known by digest (`contents`): one that was damaged
is made anew. When that is done, those that it replaces go, unless somebody has asked for them within a day: another
version of Martlet, say, with the same folder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from martlet.images.store import said_when_full
from martlet.microvm import contents
from martlet.package.staging import CHUNK, remove_tree

_LOCK, _WORK = ".lock", ".work-"
_DAY = 86_400.0
_libc = ctypes.CDLL(None, use_errno=True)

Build = Callable[[Path], None]
"""Fills an empty folder with files."""
Say = Callable[[str], None]


class Store:
    """See the module. Of several that ask for one thing, in this process or others, one makes it and the others wait.

    Args:
        folder: where it is; made where there is none.
        say: is told, for people, what is made anew and why.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._say = say

    def find(self, name: str, version: str) -> Path | None:
        """Returns the folder of this version of a thing, as it was made; None where there is none."""
        found = self.folder / f"{name}-{version}"
        try:
            os.utime(found)
        except FileNotFoundError:
            return None
        return None if contents.what_is_wrong(found, version) else found

    def get(self, name: str, version: str, build: Build) -> Path:
        """Returns the folder of this version of a thing; has it built where there is none as it was made.

        Raises:
            Unavailable: the disk is full.
        """
        found = self.find(name, version)
        if found is not None:
            return found
        with self._turn(), said_when_full(self.folder):
            for left in self.folder.glob(f"{_WORK}*"):  # by one who was killed: whoever works has the turn
                remove_tree(left)
            found = self.find(name, version)
            return found or self._make(name, version, build)

    def _make(self, name: str, version: str, build: Build) -> Path:
        target, work = self.folder / f"{name}-{version}", self._new_work()
        work.mkdir(mode=0o755)
        self._clear(name)
        if target.is_dir():
            self._say(f"{target} is made anew: {contents.what_is_wrong(target, version)}")
            self._remove(target)
        try:
            build(work)
            contents.write_list(work, version)
            _reach_disk(work)
            work.rename(target)
        finally:
            remove_tree(work)
        return target

    def _clear(self, name: str) -> None:
        """Removes versions of a thing that nobody has asked for of late."""
        for other in self.folder.glob(f"{name}-*"):
            if time.time() - other.stat().st_mtime > _DAY:
                self._remove(other)

    def _remove(self, folder: Path) -> None:
        """Removes a folder, of which nobody sees a part: who has its files open has them still."""
        remove_tree(folder.rename(self._new_work()))

    def _new_work(self) -> Path:
        return self.folder / f"{_WORK}{secrets.token_hex(8)}"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def check_room(folder: Path) -> None:
    """Raises OSError where the disk of a folder is full: what was written there has failed for that."""
    if shutil.disk_usage(folder).free < CHUNK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reach_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
