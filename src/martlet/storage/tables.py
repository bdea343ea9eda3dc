"""The tables of the SQLite store, and what the store does, as SQL. It runs in the thread of the database.

Every change gets a row in ``change``; its number is the store revision.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from martlet.storage.database import reading, writing
from martlet.storage.store import (
    Change,
    Compacted,
    Entry,
    Guard,
    GuardLost,
    LeaseExpired,
    RevisionMismatch,
)

MIGRATIONS = (
    (
        # lease: the id of the lease that the key ends with
        "CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease TEXT)",
        "CREATE INDEX kv_lease ON kv (lease) WHERE lease IS NOT NULL",
        # value: NULL where the key was deleted
        "CREATE TABLE change (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB)",
        # expires: seconds since the epoch, by the one clock that is shared by all processes and outlives them
        "CREATE TABLE lease (id TEXT PRIMARY KEY, expires REAL NOT NULL)",
        "CREATE INDEX lease_expires ON lease (expires)",
    ),
)

BATCH = 1000
"""How many changes are read at once."""


@dataclass(frozen=True, slots=True)
class Tables:
    """A connection to the database of a store, of which the last ``changes_kept`` changes are kept."""

    connection: sqlite3.Connection
    changes_kept: int

    def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        row = self.connection.execute("SELECT key, value, revision FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else Entry(*row)

    def entries(self, prefix: str) -> tuple[list[Entry], int]:
        """See `Store.list`."""
        with reading(self.connection):
            rows = self.connection.execute(
                "SELECT key, value, revision FROM kv WHERE key >= ? AND key < ? ORDER BY key", _range(prefix)
            )
            return [Entry(*row) for row in rows], self.revision()

    def put(
        self, key: str, value: bytes, expect_revision: int | None, lease: str | None, guard: Guard | None
    ) -> int:
        """See `Store.put`; ``lease`` is an id."""
        with writing(self.connection):
            self._check(key, expect_revision, guard)
            if lease is not None:
                self._check_lease(lease)
            revision = self._log(key, value)
            self.connection.execute("REPLACE INTO kv VALUES (?, ?, ?, ?)", (key, value, revision, lease))
            return revision

    def delete(self, key: str, expect_revision: int | None, guard: Guard | None) -> int | None:
        """See `Store.delete`."""
        with writing(self.connection):
            if self._check(key, expect_revision, guard) == 0:
                return None
            return self._delete(key)

    def changes(self, prefix: str, since: int) -> tuple[list[Change], int]:
        """Returns the next changes after ``since``, and the revision up to which these are all.

        Raises:
            Compacted: some of them are no longer kept.
        """
        with reading(self.connection):
            oldest: int | None = self.connection.execute("SELECT min(revision) FROM change").fetchone()[0]
            if oldest is not None and since < oldest - 1:
                raise Compacted(since, oldest)
            rows = self.connection.execute(
                "SELECT key, value, revision FROM change"
                " WHERE revision > ? AND key >= ? AND key < ? ORDER BY revision LIMIT ?",
                (since, *_range(prefix), BATCH),
            )
            found = [Change(*row) for row in rows]
            return found, found[-1].revision if len(found) == BATCH else max(self.revision(), since)

    def revision(self) -> int:
        """See `Store.revision`."""
        number: int = self.connection.execute("SELECT coalesce(max(revision), 0) FROM change").fetchone()[0]
        return number

    def version(self) -> tuple[int, int]:
        """Returns two numbers; one of them is another as soon as anybody has written."""
        by_others: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return by_others, self.connection.total_changes

    def grant(self, lease: str, ttl: float) -> None:
        """Starts a lease of ``ttl`` seconds."""
        with writing(self.connection):
            self.connection.execute("INSERT INTO lease VALUES (?, ?)", (lease, time.time() + ttl))

    def keep_alive(self, lease: str, ttl: float) -> None:
        """See `Lease.keep_alive`."""
        with writing(self.connection):
            self._check_lease(lease)
            self.connection.execute("UPDATE lease SET expires = ? WHERE id = ?", (time.time() + ttl, lease))

    def revoke(self, lease: str) -> None:
        """See `Lease.revoke`."""
        with writing(self.connection):
            self._end(lease)

    def sweep(self) -> None:
        """Ends the leases that have run out. Whoever uses the store does so first."""
        expired = "SELECT id FROM lease WHERE expires <= ?"
        now = time.time()
        if self.connection.execute(expired, (now,)).fetchone() is not None:
            with writing(self.connection):
                for (lease,) in self.connection.execute(expired, (now,)).fetchall():
                    self._end(lease)

    def _check(self, key: str, expect_revision: int | None, guard: Guard | None) -> int:
        if guard is not None and self._actual(guard.key) != guard.revision:
            raise GuardLost(guard)
        actual = self._actual(key)
        if expect_revision is not None and expect_revision != actual:
            raise RevisionMismatch(key, expect_revision, actual)
        return actual

    def _actual(self, key: str) -> int:
        entry = self.get(key)
        return 0 if entry is None else entry.revision

    def _check_lease(self, lease: str) -> None:
        if self.connection.execute("SELECT 1 FROM lease WHERE id = ?", (lease,)).fetchone() is None:
            raise LeaseExpired(f"the lease {lease} has run out: ask for another and write its keys again")

    def _end(self, lease: str) -> None:
        keys = self.connection.execute("SELECT key FROM kv WHERE lease = ? ORDER BY key", (lease,)).fetchall()
        for (key,) in keys:
            self._delete(key)
        self.connection.execute("DELETE FROM lease WHERE id = ?", (lease,))

    def _delete(self, key: str) -> int:
        self.connection.execute("DELETE FROM kv WHERE key = ?", (key,))
        return self._log(key, None)

    def _log(self, key: str, value: bytes | None) -> int:
        revision = self.revision() + 1
        self.connection.execute("INSERT INTO change VALUES (?, ?, ?)", (revision, key, value))
        self.connection.execute("DELETE FROM change WHERE revision <= ?", (revision - self.changes_kept,))
        return revision


def _range(prefix: str) -> tuple[str, str]:
    """Returns the bounds of the keys with this prefix; U+10FFFF is no character, so no key has it."""
    return prefix, prefix + "\U0010ffff"
