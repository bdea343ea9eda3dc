"""What every `Broker` does."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from martlet.storage.broker import Broker
from martlet.storage.memory_broker import MemoryBroker
from martlet.storage.queue import Depth, QueueError
from martlet.storage.redis_broker import RedisBroker
from martlet.storage.sqlite_broker import SqliteBroker
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

LONG = 600.0
SHORT = 0.05

Connect = Callable[[], Awaitable[Broker]]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens a broker; called again, it opens the same one as another client does."""
    opened: list[Broker] = []
    redis = request.getfixturevalue("redis_server") if request.param == "redis" else None

    async def connect() -> Broker:
        if redis is not None:
            opened.append(RedisBroker(redis.url))
        elif request.param == "sqlite":
            opened.append(await SqliteBroker.open(tmp_path / "queue.db"))
        elif not opened:
            opened.append(MemoryBroker())
        return opened[-1]

    yield connect
    for broker in opened:
        await broker.close()


@pytest.fixture
async def broker(connect: Connect) -> Broker:
    return await connect()


@pytest.fixture
def name() -> str:
    return secrets.token_hex(4)


async def test_a_queue_is_the_same_for_all_who_ask_for_its_name(connect: Connect, name: str) -> None:
    one, other = await connect(), await connect()
    message_id = await one.queue(name).put(b"hello")
    (delivery,) = await other.queue(name).take(1, LONG)
    assert (delivery.id, delivery.message) == (message_id, b"hello")


async def test_every_queue_with_messages_is_named(connect: Connect, name: str) -> None:
    one, other = await connect(), await connect()
    names = [f"{name}-{number}" for number in range(5)]
    for each in names:
        for _ in range(3):
            await one.queue(each).put(b"", delay=LONG if each.endswith("0") else 0)
    assert [each for each in sorted(await other.names()) if each.startswith(name)] == names


async def test_a_queue_of_dead_letters_is_named_too(broker: Broker, name: str) -> None:
    queue = broker.queue(name)
    await queue.put(b"bad")
    while taken := await queue.take(1, LONG):
        await queue.nack(taken[0])
    assert (await queue.depth()).dead == 1
    assert name in await broker.names()


async def test_a_queue_that_is_forgotten_is_empty_and_can_be_used_again(broker: Broker, name: str) -> None:
    queue, neighbour = broker.queue(name), broker.queue(f"{name}-other")
    await neighbour.put(b"stays")
    for delay in (0.0, LONG):
        await queue.put(b"gone", delay=delay)
    (delivery,) = await queue.take(1, LONG)
    await broker.forget(name)
    assert await queue.depth() == Depth()
    assert name not in await broker.names()
    await queue.ack(delivery)
    assert await neighbour.depth() == Depth(ready=1)
    await queue.put(b"new")
    assert name in await broker.names()
    assert [each.message for each in await queue.take(2, LONG)] == [b"new"]


async def test_what_is_kept_is_found_by_its_key(connect: Connect, name: str) -> None:
    one, other = await connect(), await connect()
    assert await other.kept(name) is None
    await one.keep(name, bytes(range(256)), LONG)
    assert await other.kept(name) == bytes(range(256))
    await other.keep(name, b"newer", LONG)
    assert await one.kept(name) == b"newer"


async def test_what_is_kept_is_kept_for_its_time(broker: Broker, name: str) -> None:
    await broker.keep(name, b"soon gone", SHORT)
    async with asyncio.timeout(60):
        while await broker.kept(name) is not None:
            await asyncio.sleep(0.01)
    await broker.keep(name, b"again", LONG, replace=False)
    assert await broker.kept(name) == b"again"


async def test_what_is_there_may_stay_as_it_is(broker: Broker, name: str) -> None:
    await broker.keep(name, b"first", LONG)
    await broker.keep(name, b"second", LONG, replace=False)
    assert await broker.kept(name) == b"first"


async def test_a_redis_that_is_killed_loses_nothing_that_a_broker_has(
    redis_server: RedisServer, name: str
) -> None:
    broker = RedisBroker(redis_server.url)
    message_id = await broker.queue(name).put(b"kept")
    await broker.keep(message_id, b"waiting", LONG)
    redis_server.kill()
    with pytest.raises(QueueError, match="the queue in Redis"):
        async with asyncio.timeout(60):
            await broker.names()
    redis_server.start()
    assert name in await broker.names()
    assert await broker.kept(message_id) == b"waiting"
    assert [each.id for each in await broker.queue(name).take(1, LONG)] == [message_id]
    await broker.close()
