"""Keeps sweeps of packages and deploys apart, on machines that share what is stored.

A package may lie there that nothing needs, and be just what a deploy makes again. So whoever sweeps writes that into
the store, and then looks whether another machine has a deploy; whoever has a deploy has written that into the queue,
and then looks whether another machine sweeps. One of the two sees the other at least: the sweep is left for later, or
the deploy waits until it is over. On the same machine it is `PackageStore` that keeps them apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from martlet.control.queue import Queue
from martlet.storage.store import Entry, Lease, RevisionMismatch, Store, StoreError

KEY = "/sweeping"
LEASE_SECONDS = 60.0
"""After which a machine that has fallen silent does not sweep any more."""
MOST_SECONDS = 20.0
"""How long a sweep may take; what goes on in another thread when it is over may go on until the lease ends."""
LOOK_SECONDS = 0.05
"""Seconds between two looks whether a sweep is over."""


class Sweeping:
    """See the module. Every method raises `StoreError` where the store is out of reach.

    Args:
        store: shared by all.
        queue: the deploys that have not ended.
        node: the id of this machine.
    """

    def __init__(self, store: Store, queue: Queue, node: str) -> None:
        self._store = store
        self._queue = queue
        self._node = node

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[bool]:
        """Yields whether this machine may sweep until the block is left, for which it has `MOST_SECONDS`.

        Raises:
            TimeoutError: it took longer.
        """
        lease = await self._store.lease(LEASE_SECONDS)
        try:
            async with asyncio.timeout(MOST_SECONDS):
                yield await self._announce(lease) and all(
                    map(self._queue.is_own, await self._queue.waiting())
                )
        finally:
            with suppress(StoreError):  # then deploys wait for the lease to end
                await lease.revoke()

    async def over(self) -> None:
        """Waits until no other machine sweeps; called by who has a deploy in the queue, before it stores anything."""
        while self._is_of_another(await self._store.get(KEY)):
            await asyncio.sleep(LOOK_SECONDS)

    async def _announce(self, lease: Lease) -> bool:
        found = await self._store.get(KEY)
        if self._is_of_another(found):
            return False
        before = 0 if found is None else found.revision  # an earlier life of this machine has left it
        try:
            await self._store.put(KEY, self._node.encode(), expect_revision=before, lease=lease)
        except RevisionMismatch:
            return False
        return True

    def _is_of_another(self, found: Entry | None) -> bool:
        return found is not None and found.value.decode() != self._node
