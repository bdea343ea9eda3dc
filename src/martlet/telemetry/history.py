"""The last finished invocations of each function of a lane.

They are noted in memory and written to a SQLite file of the lane a second later: `kill -9` costs that second.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import orjson
import structlog

from martlet.model import InvocationView
from martlet.storage.database import Database, writing
from martlet.storage.store import StoreError

log = structlog.get_logger()

MIGRATIONS = (
    (
        """CREATE TABLE invocation (
            number INTEGER PRIMARY KEY,  -- the order in which they finished
            id TEXT NOT NULL,
            function TEXT NOT NULL,
            revision INTEGER NOT NULL,
            status INTEGER NOT NULL,
            cold INTEGER NOT NULL,
            started REAL NOT NULL,
            queue_ms REAL NOT NULL,
            start_ms REAL NOT NULL,
            run_ms REAL NOT NULL,
            error TEXT
        )""",
        "CREATE INDEX invocation_function ON invocation (function, number)",
    ),
)

Record = tuple[str, str, int, int, bool, float, float, float, float, str | None]
"""The fields of an `InvocationView`, in its order."""

FLUSH_SECONDS = 1.0

_FIELDS = tuple(InvocationView.model_fields)
_COLD = _FIELDS.index("cold")
_COLUMNS = ", ".join(_FIELDS)
_INSERT = f"INSERT INTO invocation ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM invocation WHERE function = ? ORDER BY number DESC LIMIT ?"  # noqa: S608
_TRIM = """DELETE FROM invocation WHERE function = ? AND number <= (
    SELECT number FROM invocation WHERE function = ? ORDER BY number DESC LIMIT 1 OFFSET ?
)"""


class History:
    """The history of one lane. The file is opened when it is needed first.

    Args:
        path: the SQLite file, made where there is none.
        kept: how many invocations are remembered of each function.

    Attributes:
        on_growth: called with the functions whose invocations are about to be written.
    """

    def __init__(self, path: Path, kept: int) -> None:
        self._path = path
        self._kept = kept
        self._fresh: dict[str, deque[Record]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._file: Database | None = None
        self._opening = asyncio.Lock()
        self.on_growth: Callable[[Iterable[str]], None] = lambda functions: None

    def record(self, record: Record) -> None:
        """Notes a finished invocation. This is the hot path: it checks nothing, and writes a second later."""
        fresh = self._fresh.get(record[1])
        if fresh is None:
            fresh = self._fresh[record[1]] = deque(maxlen=self._kept)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_later)
        fresh.append(record)

    async def flush(self) -> None:
        """Writes what was noted since the last time. Raises `StoreError`; what it could not write is lost."""
        fresh, self._fresh = self._fresh, {}
        if fresh:
            self.on_growth(fresh)
            await (await self._database()).run(_write, fresh, self._kept)

    async def list(self, function: str, limit: int) -> Sequence[InvocationView]:
        """Returns the last ``limit`` invocations of a function, newest first. Raises `StoreError`."""
        await self.flush()
        rows = await (await self._database()).run(_read, function, min(limit, self._kept))
        return [InvocationView.model_validate(dict(zip(_FIELDS, row, strict=True))) for row in rows]

    async def functions(self) -> Sequence[str]:
        """Returns the functions of which something is remembered. Raises `StoreError`."""
        return await (await self._database()).run(_functions)

    async def document(self, function: str) -> bytes:
        """Returns all that is remembered of a function, each line the JSON of an `InvocationView`; newest first.

        Raises:
            StoreError: the file is out of reach.
        """
        await self.flush()
        return await (await self._database()).run(_document, function, self._kept)

    async def forget(self, function: str) -> None:
        """Drops the history of a function. Raises `StoreError`."""
        self._fresh.pop(function, None)
        await (await self._database()).run(_forget, function)

    async def close(self) -> None:
        """Writes what was noted and closes the file. Raises `StoreError` if it cannot write."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await self._flushing
        try:
            await self.flush()
        finally:
            if self._file is not None:
                await self._file.close()

    def _flush_later(self) -> None:
        self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self._flush_or_log())

    async def _flush_or_log(self) -> None:
        try:
            await self.flush()
        except StoreError as error:
            log.warning("history_not_written", error=str(error))

    async def _database(self) -> Database:
        async with self._opening:
            if self._file is None:
                self._file = await Database.open(self._path, MIGRATIONS)
            return self._file


def _write(connection: sqlite3.Connection, fresh: dict[str, deque[Record]], kept: int) -> None:
    with writing(connection):
        for function, records in fresh.items():
            connection.executemany(_INSERT, records)
            connection.execute(_TRIM, (function, function, kept))


def _read(connection: sqlite3.Connection, function: str, limit: int) -> list[tuple[object, ...]]:
    return connection.execute(_SELECT, (function, limit)).fetchall()


def _functions(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT DISTINCT function FROM invocation")]


def _document(connection: sqlite3.Connection, function: str, limit: int) -> bytes:
    rows = _read(connection, function, limit)
    return b"".join(
        orjson.dumps(dict(zip(_FIELDS, row, strict=True)) | {"cold": bool(row[_COLD])}) + b"\n"
        for row in rows
    )


def _forget(connection: sqlite3.Connection, function: str) -> None:
    connection.execute("DELETE FROM invocation WHERE function = ?", (function,))
