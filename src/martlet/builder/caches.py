"""The folders that builds find again: what a compiler or package manager keeps for a function, and what all share."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from martlet.package.staging import remove_tree

_FOLDER, _PART, _LOCK = "files", "part", "lock"
_READABLE, _SEARCHABLE, _OWNER_EXECUTES = 0o444, 0o755, 0o100


class Caches:
    """One folder for each function and runtime, at work in one build at a time, and folders that many builds read.

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
        try:
            async with _held(place, fcntl.LOCK_EX) as lock:
                (place / _FOLDER).mkdir(exist_ok=True)
                os.utime(place)
                yield place / _FOLDER, lock
        finally:
            await self._trim()

    @asynccontextmanager
    async def share(self, name: str, make: Callable[[Path, int], Awaitable[None]]) -> AsyncIterator[Path]:
        """Lends a folder to any number of builds, which only read it.

        Args:
            name: says all that decides what is in it.
            make: fills an empty folder where there is none of that name yet, while whoever else wants it waits; is
                given a descriptor too, as of `borrow`. Where it raises an error the next one makes it anew.
        """
        place = self._folder / f"@{name}"
        while True:
            async with _held(place, fcntl.LOCK_SH):
                if (place / _FOLDER).exists():
                    os.utime(place)
                    yield place / _FOLDER
                    return
            async with _held(place, fcntl.LOCK_EX) as lock:
                if not (place / _FOLDER).exists():
                    await _fill(place, make, lock)
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
        ages: dict[Path, float] = {}
        for place in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another platform has removed it
                ages[place] = place.stat().st_mtime
        held = 0
        for place in sorted(ages, key=ages.__getitem__, reverse=True):
            held += _size(place)
            if held > self._most:
                with suppress(FileNotFoundError):
                    _remove(place)


def _size(folder: Path) -> int:
    size = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                size += os.lstat(f"{path}/{name}").st_blocks * 512
    return size


async def _fill(place: Path, make: Callable[[Path, int], Awaitable[None]], lock: int) -> None:
    part = place / _PART
    await asyncio.to_thread(remove_tree, part)
    part.mkdir()
    try:
        await make(part, lock)
        await asyncio.to_thread(_open_to_all, part)
        part.rename(place / _FOLDER)
    finally:
        await asyncio.to_thread(remove_tree, part)


def _open_to_all(folder: Path) -> None:
    """Lets every user read a folder: each build is one of its own."""
    for path, _, files in os.walk(folder):
        os.chmod(path, _SEARCHABLE)
        for name in files:
            file = Path(path, name)
            if not file.is_symlink():
                mode = file.stat().st_mode
                file.chmod(mode | (_SEARCHABLE if mode & _OWNER_EXECUTES else _READABLE))


@asynccontextmanager
async def _held(place: Path, operation: int) -> AsyncIterator[int]:
    """Holds the lock of a cache, which is there then; yields its descriptor."""
    while True:
        lock = _open_lock(place)
        try:
            await asyncio.to_thread(fcntl.flock, lock, operation)
            if _is_at(lock, place / _LOCK):
                yield lock
                return
        finally:
            os.close(lock)


def _open_lock(place: Path) -> int:
    place.mkdir(parents=True, exist_ok=True)
    return os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still there: whoever held its lock may have removed it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _remove(place: Path) -> None:
    """Removes a cache, unless somebody is at work in it."""
    lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What it holds goes before the lock does: with the lock gone the next one begins.
            for folder in (_FOLDER, _PART):
                remove_tree(place / folder)
            remove_tree(place)
    finally:
        os.close(lock)
