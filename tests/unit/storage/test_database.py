import asyncio
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest

from martlet.storage.database import Database, writing
from martlet.storage.store import StoreError

pytestmark = pytest.mark.anyio

ONE = ("CREATE TABLE note (text TEXT)",)
TWO = ("ALTER TABLE note ADD COLUMN stars INTEGER NOT NULL DEFAULT 3",)
BROKEN = ("CREATE TABLE other (text TEXT)", "INSERT INTO nowhere VALUES (1)")


async def notes(database: Database) -> list[tuple[object, ...]]:
    return await database.run(lambda connection: connection.execute("SELECT * FROM note").fetchall())


async def add(database: Database, text: str) -> None:
    await database.run(lambda connection: connection.execute("INSERT INTO note (text) VALUES (?)", (text,)))


async def test_an_older_database_is_brought_up_with_its_data(tmp_path: Path) -> None:
    old = await Database.open(tmp_path / "db", [ONE])
    await add(old, "kept")
    await old.close()
    new = await Database.open(tmp_path / "db", [ONE, TWO])
    assert await notes(new) == [("kept", 3)]
    await new.close()


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await Database.open(tmp_path / "db", [ONE, TWO])).close()
    with pytest.raises(StoreError, match="has version 2 and this Martlet knows up to 1"):
        await Database.open(tmp_path / "db", [ONE])
    database = await Database.open(tmp_path / "db", [ONE, TWO])
    assert await notes(database) == []
    await database.close()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    await (await Database.open(tmp_path / "db", [ONE])).close()
    with pytest.raises(StoreError, match="nowhere"):
        await Database.open(tmp_path / "db", [ONE, BROKEN])
    database = await Database.open(tmp_path / "db", [ONE])
    tables = "SELECT name FROM sqlite_master"
    assert await database.run(lambda connection: connection.execute(tables).fetchall()) == [("note",)]
    await database.close()


async def test_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from martlet.storage.database import Database\n"
        "async def main():\n"
        "    sys.stdin.read()\n"
        "    path = pathlib.Path(sys.argv[1])\n"
        "    database = await Database.open(path, [('CREATE TABLE note (text TEXT)',)])\n"
        "    await database.run(lambda c: c.execute('INSERT INTO note VALUES (1)'))\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, tmp_path / "db", stdin=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:  # all of them wait at their stdin until now
        process.stdin.close()
    assert [await process.wait() for process in processes] == [0, 0, 0, 0]
    database = await Database.open(tmp_path / "db", [ONE])
    assert len(await notes(database)) == 4
    await database.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("these are not the tables you are looking for" * 100)
    with pytest.raises(StoreError, match="cannot open the database"):
        await Database.open(tmp_path / "db", [ONE])


async def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the database"):
        await Database.open(tmp_path / "nowhere" / "db", [ONE])


async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "db", [ONE])
    await add(database, "secret")
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await database.close()


async def test_work_runs_in_order_in_one_other_thread(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "db", [ONE])
    seen: list[int] = []

    def work(_: sqlite3.Connection, number: int) -> int:
        seen.append(number)
        return threading.get_ident()

    threads = await asyncio.gather(*(database.run(work, number) for number in range(20)))
    assert seen == list(range(20))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    await database.close()


async def test_what_raises_halfway_is_undone(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "db", [ONE])

    def fail(connection: sqlite3.Connection) -> None:
        with writing(connection):
            connection.execute("INSERT INTO note VALUES ('half')")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.run(fail)
    await add(database, "whole")
    assert await notes(database) == [("whole",)]
    await database.close()


async def test_errors_of_sqlite_are_store_errors(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "db", [ONE])
    with pytest.raises(StoreError, match="no such table: missing"):
        await database.run(lambda connection: connection.execute("SELECT * FROM missing"))
    await database.close()
    with pytest.raises(StoreError, match="is closed"):
        await notes(database)
