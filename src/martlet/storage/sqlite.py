"""The store of one machine: a SQLite file that several processes have open.

Watchers read the log of changes from where they are. They look again as soon as this object has written, and
within `POLL_SECONDS` when another process has: SQLite tells nobody, so a thread asks. It is a thread because
waking the event loop for nothing, twenty times a second, costs more than the question.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from martlet.storage.database import Database, connect
from martlet.storage.store import CHANGES_KEPT, Change, Entry, Guard, Lease
from martlet.storage.tables import MIGRATIONS, Tables

POLL_SECONDS = 0.05

P = ParamSpec("P")
Result = TypeVar("Result")


class SqliteStore:
    """A `Store` over a SQLite file. Make one with `open`; it belongs to the event loop that opened it."""

    def __init__(self, database: Database, changes_kept: int) -> None:
        self._database = database
        self._changes_kept = changes_kept
        self._closed = False
        self._changed = asyncio.Event()
        self._poller: _Poller | None = None

    @classmethod
    async def open(cls, path: Path, changes_kept: int = CHANGES_KEPT) -> SqliteStore:
        """Opens the file, made where there is none; its folder must exist.

        Raises:
            StoreError: the file cannot be opened, or was written by a newer Martlet.
        """
        return cls(await Database.open(path, MIGRATIONS), changes_kept)

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        return await self._run(Tables.get, key)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """See `Store.list`."""
        return await self._run(Tables.entries, prefix)

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
        lease_id = None if lease is None else lease.id
        return await self._write(Tables.put, key, value, expect_revision, lease_id, guard)

    async def delete(
        self, key: str, *, expect_revision: int | None = None, guard: Guard | None = None
    ) -> int | None:
        """See `Store.delete`."""
        return await self._write(Tables.delete, key, expect_revision, guard)

    async def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        """See `Store.watch`."""
        self._poll()
        while not self._closed:
            changed = self._changed  # taken before reading, so that no change falls between the two
            changes, reached = await self._run(Tables.changes, prefix, since)
            for change in changes:
                yield change
            if reached == since:
                await changed.wait()
            since = reached

    async def lease(self, ttl: float) -> SqliteLease:
        """See `Store.lease`."""
        lease = SqliteLease(self, secrets.token_hex(8), ttl)
        await self._run(Tables.grant, lease.id, ttl)
        return lease

    async def revision(self) -> int:
        """See `Store.revision`."""
        return await self._run(Tables.revision)

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        self._wake()
        if self._poller is not None:
            self._poller.end()
            await asyncio.to_thread(self._poller.join)
        await self._database.close()

    async def _run(
        self, work: Callable[Concatenate[Tables, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        def swept(connection: sqlite3.Connection) -> Result:
            tables = Tables(connection, self._changes_kept)
            tables.sweep()
            return work(tables, *args, **kwargs)

        return await self._database.run(swept)

    async def _write(
        self, work: Callable[Concatenate[Tables, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        result = await self._run(work, *args, **kwargs)
        self._wake()
        return result

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _poll(self) -> None:
        if self._poller is None and not self._closed:
            loop = asyncio.get_running_loop()
            path = self._database.path
            self._poller = _Poller(path, self._changes_kept, lambda: loop.call_soon_threadsafe(self._wake))
            self._poller.start()


@dataclass(frozen=True, slots=True)
class SqliteLease:
    """A `Lease` of a `SqliteStore`."""

    _store: SqliteStore
    id: str
    ttl: float

    async def keep_alive(self) -> None:
        """See `Lease.keep_alive`."""
        await self._store._run(Tables.keep_alive, self.id, self.ttl)

    async def revoke(self) -> None:
        """See `Lease.revoke`."""
        await self._store._write(Tables.revoke, self.id)


class _Poller(threading.Thread):
    """Looks whether anybody has written and whether a lease has run out, in a connection of its own."""

    def __init__(self, path: Path, changes_kept: int, tell: Callable[[], object]) -> None:
        super().__init__(name=f"{path.name}-poller", daemon=True)
        self._path = path
        self._changes_kept = changes_kept
        self._tell = tell
        self._ended = threading.Event()

    def end(self) -> None:
        """Makes the thread end soon."""
        self._ended.set()

    def run(self) -> None:
        """Polls until `end`."""
        with closing(connect(self._path)) as connection:
            tables = Tables(connection, self._changes_kept)
            before: tuple[int, int] | None = None
            while not self._ended.wait(POLL_SECONDS):
                try:
                    tables.sweep()
                    now = tables.version()
                except sqlite3.Error:
                    now = None  # the watchers meet the error when they read
                if now != before:
                    try:
                        self._tell()
                    except RuntimeError:
                        return  # the event loop was closed before the store
                before = now
