"""The folders that builds of a function find again: what its compiler or package manager keeps there."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from martlet.package.staging import remove_tree

_FOLDER, _LOCK = "files", "lock"


class Caches:
    """One folder for each function and runtime, at work in one build at a time.

    Args:
        folder: where they lie.
        most: bytes they may hold together; the least recently used are removed beyond that.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._trimming = asyncio.Lock()

    @asynccontextmanager
    async def borrow(self, function: str, runtime: str) -> AsyncIterator[tuple[Path, int]]:
        """Lends the folder of a function, which nobody else gets meanwhile, and a descriptor of its lock.

        Whoever works in it holds that as well: so it is not lent again after a crash of this process before the work
        has ended.
        """
        place = self._folder / f"{function}@{runtime}"
        place.mkdir(parents=True, exist_ok=True)
        lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            (place / _FOLDER).mkdir(exist_ok=True)
            os.utime(place)
            yield place / _FOLDER, lock
        finally:
            os.close(lock)
            await self._trim()

    async def clear(self, function: str, runtime: str) -> None:
        """Empties the folder of a function; whoever has borrowed it may do so."""
        await asyncio.to_thread(remove_tree, self._folder / f"{function}@{runtime}" / _FOLDER)

    async def forget(self, function: str) -> None:
        """Removes the folders of a function that is deleted."""
        for place in self._folder.glob(f"{function}@*"):
            await asyncio.to_thread(_remove, place)

    async def _trim(self) -> None:
        async with self._trimming:
            await asyncio.to_thread(self._remove_oldest)

    def _remove_oldest(self) -> None:
        places = sorted(self._folder.iterdir(), key=lambda place: place.stat().st_mtime, reverse=True)
        held = 0
        for place in places:
            held += _size(place)
            if held > self._most:
                _remove(place)


def _size(folder: Path) -> int:
    size = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                size += os.lstat(f"{path}/{name}").st_blocks * 512
    return size


def _remove(place: Path) -> None:
    """Removes a cache, unless somebody is at work in it."""
    lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(place)
    finally:
        os.close(lock)
