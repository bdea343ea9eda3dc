"""Connections to unix sockets whose owner is slow to take them."""

import asyncio
import socket
from contextlib import closing

import pytest

from martlet.http.fetch import FetchError, fetch
from martlet.http.unix import connected

pytestmark = pytest.mark.anyio


async def test_who_finds_the_queue_full_waits_until_somebody_is_taken(short_path):
    path = short_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.setblocking(False)
        loop, taken = asyncio.get_running_loop(), []
        first = [await connected(path) for _ in range(2)]  # the kernel lets one more in than it was told
        third = loop.create_task(connected(path))
        asking = loop.create_task(fetch(path, "GET", "/", timeout=0.05))
        done, _ = await asyncio.wait([third, asking], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert done == {asking}, "it does not wait, or for ever"
        assert isinstance(asking.exception(), FetchError)
        taken.append(listener.accept()[0])
        async with asyncio.timeout(60):
            first.append(await third)
        for connection in (*taken, *first):
            connection.close()


async def test_where_nobody_listens_nobody_waits(short_path):
    with pytest.raises(FileNotFoundError):
        await connected(short_path / "sock")
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(short_path / "sock"))
        with pytest.raises(ConnectionRefusedError):
            await connected(short_path / "sock")
