"""A store for whoever leads: what is written after somebody else has taken over is refused."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from martlet.storage.store import Change, Entry, Guard, Lease, Store


@dataclass(frozen=True, slots=True)
class FencedStore:
    """A `Store` whose every write has the guard of a term; it raises `GuardLost` where that is over.

    Attributes:
        store: the store itself, which stays the caller's to close.
        guard: returns what every write depends on; None: nothing, for nobody else can lead.
    """

    store: Store
    guard: Callable[[], Guard | None]

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        return await self.store.get(key)

    async def list(self, prefix: str) -> tuple[builtins.list[Entry], int]:
        """See `Store.list`."""
        return await self.store.list(prefix)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expect_revision: int | None = None,
        lease: Lease | None = None,
        guard: Guard | None = None,
    ) -> int:
        """See `Store.put`."""
        guard = guard or self.guard()
        return await self.store.put(key, value, expect_revision=expect_revision, lease=lease, guard=guard)

    async def delete(
        self, key: str, *, expect_revision: int | None = None, guard: Guard | None = None
    ) -> int | None:
        """See `Store.delete`."""
        return await self.store.delete(key, expect_revision=expect_revision, guard=guard or self.guard())

    def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        """See `Store.watch`."""
        return self.store.watch(prefix, since)

    async def lease(self, ttl: float) -> Lease:
        """See `Store.lease`."""
        return await self.store.lease(ttl)

    async def revision(self) -> int:
        """See `Store.revision`."""
        return await self.store.revision()

    async def close(self) -> None:
        """Leaves the store open."""
