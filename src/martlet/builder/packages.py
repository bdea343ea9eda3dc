"""The packages that are stored, and which must stay: those of revisions and of deploys under way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

from martlet.package.packing import PREFIX, Package
from martlet.package.unpacking import unpack
from martlet.storage.blobs import Blobs


class PackageStore:
    """See the module. A package is deleted by `sweep` only, and never while somebody has claimed it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._claimed: Counter[str] = Counter()
        self._sweeping = asyncio.Lock()

    def claim(self) -> Claim:
        """Returns a claim, to be used as a context manager around a deploy."""
        return Claim(self)

    async def sweep(self, referenced: Callable[[], Awaitable[set[str]]]) -> int:
        """Deletes the packages that no revision and no deploy needs; returns how many.

        Args:
            referenced: returns the digests that revisions name.
        """
        async with self._sweeping:
            claimed = set(
                self._claimed
            )  # before revisions are asked: a deploy may write one and end meanwhile
            stored = set(await self._blobs.list(PREFIX))
            unneeded = stored - await referenced() - claimed
            for digest in unneeded:
                await self._blobs.delete(PREFIX, digest)
            return len(unneeded)

    async def claim_one(self, digest: str) -> bool:
        """Claims a package, whether it is there or not yet, and says whether it is."""
        async with self._sweeping:
            self._claimed[digest] += 1
        return await self._blobs.exists(PREFIX, digest)

    async def put(self, package: Package) -> None:
        """Stores a package that has been claimed."""
        await self._blobs.put(PREFIX, package.digest, package.path)

    async def unpack(self, digest: str, folder: Path) -> None:
        """Unpacks a package that has been claimed into ``folder``, which is made."""
        file = folder.with_name(f"{folder.name}.package")
        await self._blobs.fetch(PREFIX, digest, file)
        await asyncio.to_thread(_unpack, file, digest, folder)

    def give_up(self, digests: list[str]) -> None:
        """Ends claims."""
        self._claimed.subtract(digests)
        self._claimed += Counter()  # drops what nobody claims any more


def _unpack(file: Path, digest: str, folder: Path) -> None:
    folder.mkdir()
    with file.open("rb") as package:
        unpack(package, digest, folder)


class Claim:
    """The packages of one deploy, safe from `PackageStore.sweep` until it ends."""

    def __init__(self, store: PackageStore) -> None:
        self._store = store
        self._digests: list[str] = []

    async def has(self, digest: str) -> bool:
        """Whether a package is stored; it is safe from now on."""
        self._digests.append(digest)
        return await self._store.claim_one(digest)

    async def add(self, package: Package) -> None:
        """Stores a package, unless it is there already."""
        if not await self.has(package.digest):
            await self._store.put(package)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._store.give_up(self._digests)
