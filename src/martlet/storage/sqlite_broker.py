"""The broker of one machine: a SQLite file that several processes have open."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from martlet.storage.database import Database, writing
from martlet.storage.queue import MAX_DELIVERIES
from martlet.storage.sqlite_queue import SqliteQueue, asked, open_database

# Steps from name to name in the index: there may be very many messages.
_NAMES = """WITH RECURSIVE name(queue) AS (
    SELECT min(queue) FROM message UNION ALL
    SELECT (SELECT min(queue) FROM message WHERE queue > name.queue) FROM name WHERE name.queue IS NOT NULL
) SELECT queue FROM name WHERE queue IS NOT NULL"""


class SqliteBroker:
    """A `Broker` in a SQLite file. Make one with `open`; it belongs to the event loop that opened it."""

    def __init__(self, database: Database, max_deliveries: int) -> None:
        self._database = database
        self._max_deliveries = max_deliveries

    @classmethod
    async def open(cls, path: Path, max_deliveries: int = MAX_DELIVERIES) -> SqliteBroker:
        """Opens the queues of a file, which is made where there is none; its folder must exist.

        Raises:
            QueueError: the file cannot be opened, or was written by a newer Martlet.
        """
        return cls(await open_database(path), max_deliveries)

    def queue(self, name: str) -> SqliteQueue:
        """See `Broker.queue`."""
        return SqliteQueue(self._database, name, self._max_deliveries)

    async def names(self) -> Sequence[str]:
        """See `Broker.names`."""
        return await asked(self._database, _names)

    async def forget(self, name: str) -> None:
        """See `Broker.forget`."""
        await asked(self._database, _forget, name)

    async def keep(self, key: str, content: bytes, seconds: float, *, replace: bool = True) -> None:
        """See `Broker.keep`."""
        await asked(self._database, _keep, key, content, seconds, replace)

    async def kept(self, key: str) -> bytes | None:
        """See `Broker.kept`."""
        return await asked(self._database, _kept, key)

    async def close(self) -> None:
        """See `Broker.close`."""
        await self._database.close()


def _names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute(_NAMES)]


def _forget(connection: sqlite3.Connection, name: str) -> None:
    with writing(connection):
        connection.execute("DELETE FROM message WHERE queue = ?", (name,))
        connection.execute("DELETE FROM name WHERE queue = ?", (name,))


def _keep(connection: sqlite3.Connection, key: str, content: bytes, seconds: float, replace: bool) -> None:
    now = time.time()
    with writing(connection):
        connection.execute("DELETE FROM kept WHERE expires <= ?", (now,))
        connection.execute(
            f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO kept VALUES (?, ?, ?)",  # noqa: S608
            (key, content, now + seconds),
        )


def _kept(connection: sqlite3.Connection, key: str) -> bytes | None:
    row = connection.execute(
        "SELECT content FROM kept WHERE key = ? AND expires > ?", (key, time.time())
    ).fetchone()
    return None if row is None else row[0]
