"""What a `LogShelf` does, in memory and in a real S3; and what becomes of shipping over a link that fails."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from martlet.model import Function
from martlet.node.logs import LogStore
from martlet.node.shipping import Shipping
from martlet.storage.log_shelf import LogShelf, ShelfError, Shelved, made_at
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView
from martlet.telemetry.history import History
from martlet.telemetry.stats import LaneStats
from tests.faulty_link import FaultyLink
from tests.s3 import CREDENTIALS, S3Server

pytestmark = pytest.mark.anyio

PIECE = Shelved("hello", 17, "m1", "lane-0", 3)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["memory", "s3"])
def shelf(request: pytest.FixtureRequest, keys: None) -> LogShelf:
    if request.param == "memory":
        return LogShelf.memory()
    server: S3Server = request.getfixturevalue("s3_server")
    return LogShelf.of(server.bucket(f"shelf/{secrets.token_hex(4)}"), request_seconds=30)


async def test_an_object_is_replaced_as_a_whole(shelf: LogShelf) -> None:
    await shelf.put(PIECE, b"one")
    await shelf.put(PIECE, b"one and two")
    assert await shelf.get(PIECE) == b"one and two"
    (found,) = await shelf.list("hello")
    assert found[:5] == PIECE[:5]
    assert found.size == len(b"one and two")
    assert abs(found.written - time()) < 3600


async def test_objects_are_listed_in_order_below_what_is_asked_for(shelf: LogShelf) -> None:
    pieces = [
        Shelved("hello", 17, "m1", "lane-0", 2),
        Shelved("hello", 17, "m1", "lane-0", 10),
        Shelved("hello", 17, "m1", "lane-1", 1),
        Shelved("hello", 17, "m2", "lane-0", 1),
        Shelved("hello", 18, "m1", "lane-0", 1),
        Shelved("hello2", 17, "m1", "lane-0", 1),
    ]
    for piece in reversed(pieces):
        await shelf.put(piece, b"x")

    async def listed(*path: str | int) -> list[Shelved]:
        return [found._replace(size=0, written=0.0) for found in await shelf.list(*path)]

    assert await listed() == pieces
    assert await listed("hello") == pieces[:5]
    assert await listed("hello", 17) == pieces[:4]
    assert await listed("hello", 17, "m1", "lane-0") == pieces[:2]
    assert await listed("hell") == []
    await shelf.delete([*pieces[:5], PIECE])
    assert await listed() == pieces[5:]
    assert await shelf.get(pieces[0]) == b""


class Lane:
    """The logs and the history of a lane, shipped without delay."""

    def __init__(self, folder: Path, shelf: LogShelf, *, bytes_per_function: int = 1 << 20) -> None:
        self.store = MemoryStore()
        self.registry = Registry(self.store)
        self.view = RegistryView(self.store)
        self.stats = LaneStats()
        self.logs = LogStore(folder / "logs", "lane-0", bytes_per_function, 1 << 20)
        self.history = History(folder / "history.db", 100)
        self.shelf = shelf
        self.shipping = Shipping(
            shelf, self.view, self.logs, self.history, self.stats, "m1", "lane-0", every=0.02
        )
        self.made = 0

    async def open(self) -> None:
        await self.view.start()
        await self.make(1.0)
        self.shipping.open()

    async def make(self, created: float) -> None:
        function = Function(name="f", latest=1, counter=1, created=created, updated=created)
        await self.view.catch_up(await self.registry.put_function(function))
        self.made = made_at(function)

    def print(self, *messages: str) -> None:
        for message in messages:
            line = {"time": 1.0, "function": "f", "revision": 1, "instance": "i", "request_id": None}
            self.logs.append({**line, "stream": "stdout", "message": message})

    async def shipped(self, shelf: LogShelf | None = None) -> str:
        """Returns all that is on the shelf of the log, by way of that one."""
        shelf = shelf or self.shelf
        found = [each for each in await shelf.list("f", self.made) if each.number]
        return b"".join([await shelf.get(each) for each in found]).decode()

    async def close(self) -> None:
        await self.shipping.close()
        await self.history.close()
        await self.logs.close()
        await self.view.close()


async def until(condition: Callable[[], Any]) -> None:
    """Waits for something that may be awaited to be true."""
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[FaultyLink]:
    link = FaultyLink(s3_server.port)
    yield link
    link.close()


async def test_a_store_that_is_silent_costs_nothing_but_time(
    s3_server: S3Server, link: FaultyLink, keys: None, tmp_path: Path
) -> None:
    bucket = s3_server.bucket(f"shelf/{secrets.token_hex(4)}", link.port)
    lane, patient = (
        Lane(tmp_path, LogShelf.of(bucket, request_seconds=1)),
        LogShelf.of(bucket, request_seconds=30),
    )
    await lane.open()

    async def has(text: str) -> bool:
        try:
            return text in await lane.shipped()
        except ShelfError:
            return False

    try:
        lane.print("before")
        await until(lambda: has("before"))
        link.silent = True
        lane.print("meanwhile")
        assert [line.message for line in await lane.logs.read("f")] == ["before", "meanwhile"]

        async def behind() -> bool:
            return lane.stats.logs_wait_since is not None

        await until(behind)
        with pytest.raises(ShelfError):
            await lane.shipped()
        link.silent = False
        link.cut()
        await until(lambda: has("meanwhile"))

        async def caught_up() -> bool:
            return lane.stats.logs_wait_since is None

        await until(caught_up)
        assert (await lane.shipped(patient)).count("before") == 1
        assert lane.stats.logs_dropped == 0
    finally:
        await lane.close()
