import asyncio
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from martlet.storage.database import Database
from martlet.storage.sqlite import SqliteStore
from martlet.storage.store import Change, StoreError
from martlet.storage.tables import MIGRATIONS

pytestmark = pytest.mark.anyio

WRITER = """
import asyncio, itertools, pathlib, sys
from martlet.storage.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]))
    for number in itertools.count():
        await store.put(f"/n/{number % 50}", b"%d" % number * 500)
        print(await store.put("/last", b"%d" % number), flush=True)

asyncio.run(main())
"""


async def test_a_killed_writer_leaves_all_that_it_was_told_is_written(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for _ in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, path, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            told = [await writer.stdout.readline() for _ in range(40)]
            writer.send_signal(signal.SIGKILL)
            told += (await writer.stdout.read()).splitlines()
            await writer.wait()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store = await SqliteStore.open(path)
        entries, revision = await store.list("/")
        newest = max(entries, key=lambda entry: entry.revision)
        assert newest.revision == revision >= int(told[-1])
        changes = store.watch("/", revision - 1)
        assert await anext(changes) == Change(newest.key, newest.value, revision)
        await changes.aclose()
        await store.close()


async def test_own_writes_are_seen_without_waiting_for_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("martlet.storage.sqlite.POLL_SECONDS", 3600)
    store = await SqliteStore.open(tmp_path / "store.db")
    changes = store.watch("/", 0)
    async with asyncio.timeout(60):
        for number in range(1, 4):
            waiting = asyncio.ensure_future(anext(changes))
            await store.get("/")  # the watch has found nothing and waits
            await store.put("/a", b"")
            assert (await waiting).revision == number
    await changes.aclose()
    await store.close()


async def test_data_outlives_the_process(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    revision = await store.put("/a", b"1")
    await store.close()
    store = await SqliteStore.open(tmp_path / "store.db")
    assert await store.list("/") == ([await store.get("/a")], revision)
    await store.close()


async def test_a_lease_of_a_dead_process_ends(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.put("/a", b"", lease=await store.lease(0.05))
    await store.close()
    store = await SqliteStore.open(tmp_path / "store.db")
    changes = store.watch("/", 1)
    async with asyncio.timeout(60):
        assert await anext(changes) == Change("/a", None, 2)
    await changes.aclose()
    await store.close()


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
async def test_a_store_of_every_earlier_version_opens(tmp_path: Path, version: int) -> None:
    await (await Database.open(tmp_path / "store.db", MIGRATIONS[:version])).close()
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.put("/a", b"1")
    await store.close()


async def test_a_store_of_a_newer_martlet_is_refused(tmp_path: Path) -> None:
    later = (*MIGRATIONS, ("CREATE TABLE later (text TEXT)",))
    await (await Database.open(tmp_path / "store.db", later)).close()
    with pytest.raises(StoreError, match="run the Martlet that wrote it"):
        await SqliteStore.open(tmp_path / "store.db")
