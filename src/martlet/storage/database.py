"""One SQLite file and the one thread that talks to it, so that the event loop never waits for a disk.

The file is in WAL mode: several processes have it open, and readers never wait for the writer. Unless each
commit is to be durable, it is flushed at checkpoints only (``synchronous=NORMAL``). A killed process loses
nothing that was committed, because the kernel has it by then. A power cut may lose the commits since the last
checkpoint, at most some 4 MiB of them; what is left is whole, as it was after some earlier commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from martlet.storage.store import StoreError

BUSY_SECONDS = 5.0
"""How long a writer waits for another process's transaction before it gives up."""

Migration = Sequence[str]
"""The statements that take a database from one version to the next."""

P = ParamSpec("P")
Result = TypeVar("Result")


class Database:
    """A SQLite file that is open. Make one with `open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._closed = False

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[Migration], *, durable: bool = False) -> Database:
        """Opens ``path``, made with mode 0600 where there is none, and brings it to the newest version.

        Args:
            path: the file; its folder must exist.
            migrations: the n-th takes version n - 1 to version n; what was released never changes.
            durable: flush each commit, so that a power cut loses none either.

        Raises:
            StoreError: the file cannot be opened, is no database, or was written by a newer Martlet.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix=path.name)
        try:
            connection = await asyncio.get_running_loop().run_in_executor(
                thread, _open, path, migrations, durable
            )
        except BaseException as error:
            thread.shutdown(wait=False)
            if isinstance(error, sqlite3.Error | OSError):
                raise StoreError(f"cannot open the database {path}: {error}") from error
            raise
        return cls(path, connection, thread)

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        """Runs ``work(connection, …)`` in the thread of the database, after all that was asked for earlier.

        Raises:
            StoreError: SQLite will not do it, or the database is closed.
        """
        if self._closed:
            raise StoreError(f"the database {self.path} is closed")

        def job() -> Result:
            try:
                return work(self._connection, *args, **kwargs)
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def close(self) -> None:
        """Finishes what was asked for and lets go of the file; harmless when that has been done."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            self._thread.shutdown()


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """Lets several statements see the same moment."""
    with _transaction(connection, "BEGIN"):
        yield


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Makes several statements one change: all of it happens, or nothing when the body raises.

    The write lock is taken at the start, so that what the body reads is still so when it writes.
    """
    with _transaction(connection, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def connect(path: Path) -> sqlite3.Connection:
    """Connects to a database that `Database.open` has opened before, for the calling thread alone."""
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def _open(path: Path, migrations: Sequence[Migration], durable: bool) -> sqlite3.Connection:
    # Never opens a file that exists: closing the descriptor would drop the locks that other connections of
    # this process hold on it.
    with suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
    connection = connect(path)
    try:
        _use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL; where two processes try it at once, SQLite refuses one of them without waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    with writing(connection):
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise StoreError(
                f"the database {path} has version {version} and this Martlet knows up to {len(migrations)}: "
                "run the Martlet that wrote it, or a newer one"
            )
        for number, statements in enumerate(migrations[version:], version + 1):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
