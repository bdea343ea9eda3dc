"""Removing what nothing needs: old revisions, their packages, and what deploys that were cut off have left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from martlet.builder.packages import PackageStore
from martlet.control.publishing import Publishing
from martlet.control.queue import Queue
from martlet.control.sweeping import Sweeping
from martlet.errors import FunctionNotFound
from martlet.model import Revision
from martlet.storage.blobs import BlobError
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import Store, StoreError

log = structlog.get_logger()


class Garbage:
    """See the module.

    Args:
        store: the store.
        registry: the store as models.
        view: the store in memory.
        publishing: deletes revisions.
        packages: deletes packages.
        queue: deletes uploads.
        sweeping: keeps sweeps and the deploys of other machines apart.
        revisions_kept: revisions that a function keeps besides those that something points at.
        may_sweep: whether packages and uploads are this control's to delete.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        view: RegistryView,
        publishing: Publishing,
        packages: PackageStore,
        queue: Queue,
        sweeping: Sweeping,
        revisions_kept: int,
        may_sweep: Callable[[], bool],
    ) -> None:
        self._store = store
        self._registry = registry
        self._view = view
        self._publishing = publishing
        self._packages = packages
        self._queue = queue
        self._sweeping = sweeping
        self._kept = revisions_kept
        self._may_sweep = may_sweep
        self._sweep: asyncio.Task[None] | None = None

    async def recover(self, registry: Registry, concerns: Callable[[str], bool]) -> None:
        """Removes revisions and aliases without a function: what a process that was killed did not finish.

        Args:
            registry: what they are deleted by.
            concerns: whether the remains of a function are this control's to remove; another one may be making it.

        Raises:
            StoreError: it is out of reach, or this control may not write by that registry any more.
        """
        for function, number in list(self._view.revisions):
            if concerns(function) and await self._is_gone(function):
                await registry.delete_revision(function, number)
        for function, aliases in list(self._view.aliases.items()):
            if concerns(function) and await self._is_gone(function):
                for alias in list(aliases):
                    await registry.delete_alias(function, alias)
        self.sweep_soon()

    async def _is_gone(self, function: str) -> bool:
        """Whether there is no such function, in the store itself too."""
        if function in self._view.functions:
            return False
        try:
            await self._registry.get_function(function)
        except FunctionNotFound:
            return True
        return False

    async def prune(self, name: str) -> None:
        """Deletes the oldest revisions of a function, beyond those that are kept. Its lock must be held."""
        revisions = await self._registry.list_revisions(name)
        aliases = await self._registry.list_aliases(name)
        pointed_at = {number for alias in aliases for number in alias.weights}
        pointed_at.add((await self._registry.get_function(name)).latest)
        old = [revision for revision in revisions[: -self._kept] if revision.number not in pointed_at]
        await self._publishing.drop(old)
        self.sweep_soon()

    def sweep_soon(self) -> None:
        """Deletes the packages and uploads that nothing needs, in the background."""
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(self._sweep_blobs())

    async def close(self) -> None:
        """Stops what goes on in the background."""
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.gather(self._sweep, return_exceptions=True)

    async def _sweep_blobs(self) -> None:
        if not self._may_sweep():
            return
        try:
            async with self._sweeping.begin() as may:
                count = await self._packages.sweep(self._referenced) if may else 0
            await self._queue.sweep()
        except (BlobError, StoreError, TimeoutError) as error:
            log.warning("packages_not_swept", error=str(error) or "it took too long")
        else:
            if count:
                log.info("packages_swept", count=count)

    async def _referenced(self) -> set[str]:
        await self._view.catch_up(await self._store.revision())
        return {digest for revision in self._view.revisions.values() for digest in _packages_of(revision)}


def _packages_of(revision: Revision) -> list[str]:
    return [
        digest for digest in (revision.source, revision.code, revision.dependencies) if digest is not None
    ]
