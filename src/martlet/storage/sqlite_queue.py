"""The queue of one machine: a SQLite file that several processes have open, with any number of queues in it."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from martlet.storage.database import Database, writing
from martlet.storage.queue import (
    DEDUPE_SECONDS,
    MAX_DELIVERIES,
    DeadLetter,
    Delivery,
    Depth,
    QueueError,
    checked_visibility,
    full,
    lost,
)
from martlet.storage.store import StoreError

MIGRATIONS = (
    (
        # due: when it may be taken, in seconds since the epoch; holder: the handle of its last delivery;
        # died: when it became a dead letter
        "CREATE TABLE message (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL,"
        " content BLOB NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
        " holder TEXT NOT NULL DEFAULT '', taken INTEGER NOT NULL DEFAULT 0, died REAL)",
        "CREATE INDEX message_due ON message (queue, due) WHERE died IS NULL",
        "CREATE INDEX message_died ON message (queue, died) WHERE died IS NOT NULL",
        # what was put under a name
        "CREATE TABLE name (queue TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, expires REAL NOT NULL,"
        " PRIMARY KEY (queue, name))",
        "CREATE INDEX name_expires ON name (expires)",
    ),
    (
        "CREATE INDEX message_queue ON message (queue)",
        # what a broker keeps for a while
        "CREATE TABLE kept (key TEXT PRIMARY KEY, content BLOB NOT NULL, expires REAL NOT NULL)",
        "CREATE INDEX kept_expires ON kept (expires)",
    ),
)

P = ParamSpec("P")
Result = TypeVar("Result")


class SqliteQueue:
    """A `Queue` in a SQLite file. Make one with `open`; it belongs to the event loop that opened it."""

    def __init__(self, database: Database, name: str, max_deliveries: int) -> None:
        self._database = database
        self._name = name
        self._max_deliveries = max_deliveries

    @classmethod
    async def open(cls, path: Path, name: str, max_deliveries: int = MAX_DELIVERIES) -> SqliteQueue:
        """Opens the queue ``name`` in a file, which is made where there is none; its folder must exist.

        Raises:
            QueueError: the file cannot be opened, or was written by a newer Martlet.
        """
        return cls(await open_database(path), name, max_deliveries)

    async def put(
        self, message: bytes, *, delay: float = 0.0, dedupe: str | None = None, most: int | None = None
    ) -> str:
        """See `Queue.put`."""
        return await self._run(_put, self._name, message, time.time() + delay, dedupe, most)

    async def take(self, n: int, visibility: float) -> Sequence[Delivery]:
        """See `Queue.take`."""
        return await self._run(_take, self._name, n, checked_visibility(visibility), self._max_deliveries)

    async def ack(self, delivery: Delivery) -> None:
        """See `Queue.ack`."""
        await self._run(_ack, delivery)

    async def nack(self, delivery: Delivery, delay: float = 0.0, *, tried: bool = True) -> None:
        """See `Queue.nack`."""
        await self._run(_nack, delivery, time.time() + delay, self._max_deliveries, tried)

    async def extend(self, delivery: Delivery, visibility: float) -> None:
        """See `Queue.extend`."""
        await self._run(_extend, delivery, time.time() + checked_visibility(visibility))

    async def depth(self) -> Depth:
        """See `Queue.depth`."""
        return await self._run(_depth, self._name)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Queue.dead_letters`."""
        return await self._run(_dead_letters, self._name, limit)

    async def is_dead(self, message_id: str) -> bool:
        """See `Queue.is_dead`."""
        return await self._run(_is_dead, self._name, message_id)

    async def requeue(self, message_id: str) -> bool:
        """See `Queue.requeue`."""
        return await self._run(_requeue, self._name, message_id)

    async def drop(self, message_id: str) -> bool:
        """See `Queue.drop`."""
        return await self._run(_drop, self._name, message_id)

    async def close(self) -> None:
        """See `Queue.close`."""
        await self._database.close()

    async def _run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        return await asked(self._database, work, *args, **kwargs)


async def open_database(path: Path) -> Database:
    """Opens a file of queues, as `SqliteQueue.open` does."""
    try:
        return await Database.open(path, MIGRATIONS, durable=True)
    except StoreError as error:
        raise QueueError(str(error)) from error


async def asked(
    database: Database,
    work: Callable[Concatenate[sqlite3.Connection, P], Result],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Result:
    """Returns ``work(connection, …)`` of a file of queues. Raises `QueueError`."""
    try:
        return await database.run(work, *args, **kwargs)
    except StoreError as error:
        raise QueueError(str(error)) from error


def _put(
    connection: sqlite3.Connection, queue: str, message: bytes, due: float, name: str | None, most: int | None
) -> str:
    message_id, now = secrets.token_hex(16), time.time()
    with writing(connection):
        connection.execute("DELETE FROM name WHERE expires <= ?", (now,))
        if name is not None:
            known = connection.execute(
                "SELECT id FROM name WHERE queue = ? AND name = ?", (queue, name)
            ).fetchone()
            if known is not None:
                return str(known[0])
        if most is not None and _count(connection, queue) >= most:
            raise full(most)
        if name is not None:
            connection.execute(
                "INSERT INTO name VALUES (?, ?, ?, ?)", (queue, name, message_id, now + DEDUPE_SECONDS)
            )
        connection.execute(
            "INSERT INTO message (id, queue, content, due) VALUES (?, ?, ?, ?)",
            (message_id, queue, message, due),
        )
    return message_id


def _count(connection: sqlite3.Connection, queue: str) -> int:
    """Counts the messages that are no dead letters."""
    counted = connection.execute("SELECT count(*) FROM message WHERE queue = ? AND died IS NULL", (queue,))
    return int(counted.fetchone()[0])


def _take(
    connection: sqlite3.Connection, queue: str, n: int, visibility: float, max_deliveries: int
) -> list[Delivery]:
    now = time.time()
    due = (queue, now)
    if (
        connection.execute(
            "SELECT 1 FROM message WHERE queue = ? AND due <= ? AND died IS NULL LIMIT 1", due
        ).fetchone()
        is None
    ):
        return []  # who asks an empty queue again and again does not write
    with writing(connection):
        connection.execute(
            "UPDATE message SET died = ? WHERE queue = ? AND due <= ? AND died IS NULL AND attempts >= ?",
            (now, *due, max_deliveries),
        )
        rows = connection.execute(
            "SELECT id, content, attempts + 1 FROM message WHERE queue = ? AND due <= ? AND died IS NULL"
            " ORDER BY due, number LIMIT ?",
            (*due, n),
        ).fetchall()
        deliveries = [Delivery(key, content, attempt, secrets.token_hex(8)) for key, content, attempt in rows]
        connection.executemany(
            "UPDATE message SET due = ?, attempts = ?, holder = ?, taken = 1 WHERE id = ?",
            [(now + visibility, each.attempt, each.handle, each.id) for each in deliveries],
        )
    return deliveries


def _is_held(connection: sqlite3.Connection, delivery: Delivery) -> bool:
    """Whether a delivery holds its message; not where it has ended. Raises `DeliveryLost`."""
    row = connection.execute(
        "SELECT holder, taken FROM message WHERE id = ? AND died IS NULL", (delivery.id,)
    ).fetchone()
    if row is not None and row[0] != delivery.handle:
        raise lost(delivery)
    return row is not None and bool(row[1])


def _ack(connection: sqlite3.Connection, delivery: Delivery) -> None:
    with writing(connection):
        if _is_held(connection, delivery):
            connection.execute("DELETE FROM message WHERE id = ?", (delivery.id,))


def _nack(
    connection: sqlite3.Connection, delivery: Delivery, due: float, max_deliveries: int, tried: bool
) -> None:
    with writing(connection):
        if _is_held(connection, delivery):
            died = time.time() if tried and delivery.attempt >= max_deliveries else None
            attempts = delivery.attempt if tried else delivery.attempt - 1
            connection.execute(
                "UPDATE message SET due = ?, died = ?, attempts = ?, taken = 0 WHERE id = ?",
                (due, died, attempts, delivery.id),
            )


def _extend(connection: sqlite3.Connection, delivery: Delivery, due: float) -> None:
    with writing(connection):
        if not _is_held(connection, delivery):
            raise lost(delivery)
        connection.execute("UPDATE message SET due = ? WHERE id = ?", (due, delivery.id))


def _depth(connection: sqlite3.Connection, queue: str) -> Depth:
    counts = connection.execute(
        "SELECT count(*) FILTER (WHERE NOT taken AND due <= ?), count(*) FILTER (WHERE NOT taken AND due > ?),"
        " count(*) FILTER (WHERE taken) FROM message WHERE queue = ? AND died IS NULL",
        (now := time.time(), now, queue),
    ).fetchone()
    dead = connection.execute("SELECT count(*) FROM message WHERE queue = ? AND died IS NOT NULL", (queue,))
    return Depth(*counts, *dead.fetchone())


def _dead_letters(connection: sqlite3.Connection, queue: str, limit: int) -> list[DeadLetter]:
    rows = connection.execute(
        "SELECT id, content, attempts, died FROM message WHERE queue = ? AND died IS NOT NULL"
        " ORDER BY died, number LIMIT ?",
        (queue, limit),
    )
    return [DeadLetter(*row) for row in rows]


def _is_dead(connection: sqlite3.Connection, queue: str, message_id: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM message WHERE queue = ? AND id = ? AND died IS NOT NULL", (queue, message_id)
    )
    return found.fetchone() is not None


def _requeue(connection: sqlite3.Connection, queue: str, message_id: str) -> bool:
    with writing(connection):
        changed = connection.execute(
            "UPDATE message SET died = NULL, due = ?, attempts = 0, holder = '', taken = 0"
            " WHERE queue = ? AND id = ? AND died IS NOT NULL",
            (time.time(), queue, message_id),
        )
        return changed.rowcount > 0


def _drop(connection: sqlite3.Connection, queue: str, message_id: str) -> bool:
    with writing(connection):
        changed = connection.execute(
            "DELETE FROM message WHERE queue = ? AND id = ? AND died IS NOT NULL", (queue, message_id)
        )
        return changed.rowcount > 0
