"""The protocol of the store: a small ordered map with revisions, watches and leases, shaped like etcd.

Keys are ``/``-separated text, values are bytes. Every change gets the next **store revision**, one counter
for the whole store. Implementations: `sqlite` (one machine), `etcd` (many), `memory` (tests and ``martlet dev``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

CHANGES_KEPT = 10_000
"""How many changes a store keeps, so how far a watch may lag behind before it is told `Compacted`."""


class StoreError(Exception):
    """The store could not do it. A write that ended in this very error may have been done: the answer was lost."""


class RevisionMismatch(StoreError):
    """``expect_revision`` is not the revision the key has; ``actual`` is (0: there is no such key)."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(f"{key} is at revision {actual}, not {expected}")
        self.key, self.expected, self.actual = key, expected, actual


class Compacted(StoreError):
    """The changes since that revision are no longer kept: list again, then watch from there."""

    def __init__(self, since: int, oldest: int) -> None:
        super().__init__(f"changes since revision {since} are gone; the oldest kept is {oldest}")
        self.since, self.oldest = since, oldest


class LeaseExpired(StoreError):
    """The lease has run out (or never was); what was put under it is deleted."""


class GuardLost(StoreError):
    """The key of the guard is at another revision, or gone; nothing was written."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(f"{guard.key} is not at revision {guard.revision} any more")
        self.guard = guard


@dataclass(frozen=True, slots=True)
class Guard:
    """What must still be so for a write to happen: a key at the revision that somebody, the writer, wrote."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value and the store revision that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change: ``value`` is None where the key was deleted.

    Each has a revision of its own, but for keys that end with one lease: these may share one.
    """

    key: str
    value: bytes | None
    revision: int


class Lease(Protocol):
    """A promise to be alive: keys put under it vanish when it is not kept alive for ``ttl`` seconds."""

    @property
    def id(self) -> str:
        """What names the lease in the store."""

    @property
    def ttl(self) -> float:
        """Time to live, in seconds; the store may have granted more than was asked for."""

    async def keep_alive(self) -> None:
        """Starts the time to live anew. Raises `LeaseExpired` when it is too late."""

    async def revoke(self) -> None:
        """Ends the lease and deletes its keys now; harmless when it has ended."""


class Store(Protocol):
    """See the module. All methods raise `StoreError` when the store is out of reach."""

    async def get(self, key: str) -> Entry | None:
        """Returns the entry, or None."""

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """Returns the entries whose key starts with ``prefix``, by key, and their store revision."""

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expect_revision: int | None = None,
        lease: Lease | None = None,
        guard: Guard | None = None,
    ) -> int:
        """Writes the key and returns the new store revision.

        Args:
            key: the key.
            value: its new value.
            expect_revision: write only if the key is at this revision (0: only if there is no such key).
            lease: the key is deleted when this lease ends.
            guard: write only while this is so.

        Raises:
            RevisionMismatch: the key is at another revision; nothing was written.
            GuardLost: the guard is; nothing was written.
            LeaseExpired: the lease has ended; nothing was written.
        """

    async def delete(
        self, key: str, *, expect_revision: int | None = None, guard: Guard | None = None
    ) -> int | None:
        """Deletes the key; returns the new store revision, or None if there was no such key.

        Raises:
            RevisionMismatch: the key is at another revision; nothing was deleted.
            GuardLost: the guard is; nothing was deleted.
        """

    def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        """Yields every change after store revision ``since`` of keys starting with ``prefix``, in order.

        Close the iterator (``aclose``) to stop. Raises `Compacted` when ``since`` is too old.
        """

    async def lease(self, ttl: float) -> Lease:
        """Grants a lease of ``ttl`` seconds."""

    async def revision(self) -> int:
        """Returns the store revision of the last ``put`` or ``delete``."""

    async def close(self) -> None:
        """Lets go of files and connections; watches end."""
