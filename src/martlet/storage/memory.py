"""The store in memory: for tests and ``martlet dev``. It is lost with its process."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from itertools import islice

from martlet.storage.store import (
    CHANGES_KEPT,
    Change,
    Compacted,
    Entry,
    Guard,
    GuardLost,
    Lease,
    LeaseExpired,
    RevisionMismatch,
    StoreError,
)


class MemoryStore:
    """A `Store` that is a dict. It belongs to one event loop."""

    def __init__(self, changes_kept: int = CHANGES_KEPT) -> None:
        self._entries: dict[str, Entry] = {}
        self._changes: deque[Change] = deque(maxlen=changes_kept)
        self._revision = 0
        self._leases: dict[str, MemoryLease] = {}
        self._changed = asyncio.Event()
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        self._check_open()
        return self._entries.get(key)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """See `Store.list`."""
        self._check_open()
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)], self._revision

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
        self._check(key, expect_revision, guard)
        keys = set() if lease is None else self._lease(lease.id).keys
        self._drop(key)
        keys.add(key)
        self._log(key, value)
        self._entries[key] = Entry(key, value, self._revision)
        return self._revision

    async def delete(
        self, key: str, *, expect_revision: int | None = None, guard: Guard | None = None
    ) -> int | None:
        """See `Store.delete`."""
        if self._check(key, expect_revision, guard) == 0:
            return None
        self._drop(key)
        self._log(key, None)
        return self._revision

    async def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        """See `Store.watch`."""
        while not self._closed:
            changed = self._changed  # taken before reading, so that no change falls between the two
            oldest = self._revision - len(self._changes) + 1
            if since < oldest - 1:
                raise Compacted(since, oldest)
            fresh = [*islice(self._changes, since + 1 - oldest, None)]
            since = max(since, self._revision)
            for change in fresh:
                if change.key.startswith(prefix):
                    yield change
            await changed.wait()

    async def lease(self, ttl: float) -> MemoryLease:
        """See `Store.lease`."""
        self._check_open()
        lease = MemoryLease(self, ttl)
        self._leases[lease.id] = lease
        return lease

    async def revision(self) -> int:
        """See `Store.revision`."""
        self._check_open()
        return self._revision

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        for lease in self._leases.values():
            lease.timer.cancel()
        self._wake()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def _check(self, key: str, expect_revision: int | None, guard: Guard | None) -> int:
        self._check_open()
        if guard is not None and self._actual(guard.key) != guard.revision:
            raise GuardLost(guard)
        actual = self._actual(key)
        if expect_revision is not None and expect_revision != actual:
            raise RevisionMismatch(key, expect_revision, actual)
        return actual

    def _actual(self, key: str) -> int:
        return self._entries[key].revision if key in self._entries else 0

    def _lease(self, lease: str) -> MemoryLease:
        if lease not in self._leases:
            raise LeaseExpired(f"the lease {lease} has run out: ask for another and write its keys again")
        return self._leases[lease]

    def _end(self, lease: str) -> None:
        ended = self._leases.pop(lease, None)
        if ended is not None:
            ended.timer.cancel()
            for key in sorted(ended.keys):
                del self._entries[key]
                self._log(key, None)

    def _drop(self, key: str) -> None:
        self._entries.pop(key, None)
        for lease in self._leases.values():
            lease.keys.discard(key)

    def _log(self, key: str, value: bytes | None) -> None:
        self._revision += 1
        self._changes.append(Change(key, value, self._revision))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryLease:
    """A `Lease` of a `MemoryStore`."""

    def __init__(self, store: MemoryStore, ttl: float) -> None:
        self.id = secrets.token_hex(8)
        self.ttl = ttl
        self.keys: set[str] = set()
        self._store = store
        self.timer = self._wind()

    async def keep_alive(self) -> None:
        """See `Lease.keep_alive`."""
        self._store._lease(self.id)
        self.timer.cancel()
        self.timer = self._wind()

    async def revoke(self) -> None:
        """See `Lease.revoke`."""
        self._store._end(self.id)

    def _wind(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self.ttl, self._store._end, self.id)
