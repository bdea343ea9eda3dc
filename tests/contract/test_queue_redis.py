"""What the queue in Redis does besides: when Redis is killed, out of reach or emptied, and when consumers are."""

import asyncio
import multiprocessing
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from martlet.storage.queue import Delivery, DeliveryLost, Depth, QueueError
from martlet.storage.redis_queue import RedisQueue
from tests.faulty_link import FaultyLink
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

LONG = 600.0
PATIENT = 60
"""Seconds after which a test has hung."""


@pytest.fixture
def name() -> str:
    return secrets.token_hex(4)


@pytest.fixture
def link(redis_server: RedisServer) -> Iterator[FaultyLink]:
    link = FaultyLink(redis_server.port)
    yield link
    link.close()


@pytest.fixture
async def queue(redis_server: RedisServer, name: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(redis_server.url, name)
    yield queue
    await queue.close()


@pytest.fixture
async def far_queue(redis_server: RedisServer, link: FaultyLink, name: str) -> AsyncIterator[RedisQueue]:
    """The same queue, over a link that fails."""
    queue = RedisQueue(redis_server.url_over(link.port), name, patience=3)
    yield queue
    await queue.close()


async def everything(queue: RedisQueue, visibility: float = LONG) -> list[Delivery]:
    found: list[Delivery] = []
    while taken := await queue.take(100, visibility):
        found += taken
    return found


async def test_a_restart_loses_nothing_that_was_accepted(
    redis_server: RedisServer, queue: RedisQueue
) -> None:
    accepted: list[str] = []

    stop = asyncio.Event()

    async def put() -> None:
        while not stop.is_set():
            accepted.append(await queue.put(b"%d" % len(accepted)))

    held = await queue.put(b"held")
    await queue.take(1, LONG)
    delayed = await queue.put(b"delayed", delay=LONG)
    putting = asyncio.ensure_future(put())
    for _ in range(2):
        before = len(accepted)
        async with asyncio.timeout(PATIENT):
            while len(accepted) < before + 50:
                await asyncio.sleep(0.001)
        redis_server.kill()
        redis_server.start()  # while it is away the loop stands, so that nothing gives up
    stop.set()
    async with asyncio.timeout(PATIENT):
        await putting
    found = {each.id for each in await everything(queue)}
    assert found >= set(accepted)
    assert not found & {held, delayed}, "what is held and what is delayed still is"
    assert (await queue.depth()).delayed == 1


async def test_a_redis_that_is_gone_is_said_to_be_and_may_come_back(
    redis_server: RedisServer, queue: RedisQueue
) -> None:
    await queue.put(b"kept")
    redis_server.kill()
    async with asyncio.timeout(PATIENT):
        with pytest.raises(QueueError, match="the queue in Redis"):
            await queue.take(1, LONG)
    redis_server.start()
    assert [each.message for each in await queue.take(1, LONG)] == [b"kept"]


async def test_a_redis_that_falls_silent_is_given_up(far_queue: RedisQueue, link: FaultyLink) -> None:
    await far_queue.put(b"kept")
    (delivery,) = await far_queue.take(1, LONG)
    link.silent = True
    async with asyncio.timeout(PATIENT):
        calls = [far_queue.put(b""), far_queue.take(1, LONG), far_queue.ack(delivery), far_queue.depth()]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert type(error) is QueueError
    link.silent = False
    await far_queue.ack(delivery)


@pytest.mark.parametrize("answered", [False, True], ids=["before Redis has it", "before the answer"])
async def test_what_is_cut_off_is_asked_again_and_happens_once(
    far_queue: RedisQueue, queue: RedisQueue, link: FaultyLink, answered: bool
) -> None:
    await _spoil(link, far_queue, answered)
    await far_queue.put(b"first", dedupe="named")
    await _spoil(link, far_queue, answered)
    await far_queue.put(b"second")
    assert await queue.depth() == Depth(ready=2)
    deliveries = await far_queue.take(2, LONG)
    await _spoil(link, far_queue, answered)
    await far_queue.ack(deliveries[0])
    await _spoil(link, far_queue, answered)
    await far_queue.nack(deliveries[1])
    assert await queue.depth() == Depth(ready=1)


async def test_what_was_taken_and_did_not_arrive_comes_again(
    far_queue: RedisQueue, queue: RedisQueue, link: FaultyLink
) -> None:
    message_id = await queue.put(b"lost on the way")
    await _spoil(link, far_queue, answered=True)
    # It asks again after a fifth of a second at most, or, on a busy machine, whenever it gets to it.
    assert list(await far_queue.take(1, 3)) == [], "the first answer was lost, and the message is held"
    assert (await queue.depth()).taken == 1
    async with asyncio.timeout(PATIENT):
        while not (taken := await queue.take(1, LONG)):
            await asyncio.sleep(0.01)
    assert [(each.id, each.attempt) for each in taken] == [(message_id, 2)]


async def _spoil(link: FaultyLink, queue: RedisQueue, answered: bool) -> None:
    """Lets the connection be cut in the next call: before Redis has read it, or before its answer has come."""
    await queue.depth()  # there is a connection, and Redis has the scripts
    link.breaks_after, link.breaks = 0, "down" if answered else "up"


async def test_what_has_expired_is_found_wherever_the_last_look_ended(queue: RedisQueue) -> None:
    for number in range(3):
        await queue.put(b"%d" % number)
    deliveries = await queue.take(3, LONG)
    for delivery in reversed(deliveries):
        await queue.extend(delivery, 0.001)
        await asyncio.sleep(0.005)
        assert [each.id for each in await queue.take(1, LONG)] == [delivery.id]


async def test_two_consumers_never_hold_the_same_at_once(redis_server: RedisServer, name: str) -> None:
    consumers = [RedisQueue(redis_server.url, name, max_deliveries=1000) for _ in range(2)]
    ids = [await consumers[0].put(b"%d" % number) for number in range(20)]
    until: dict[str, float] = {}
    done: set[str] = set()
    loop = asyncio.get_running_loop()

    async def consume(queue: RedisQueue, visibility: float) -> None:
        while len(done) < len(ids):
            asked = loop.time()
            for each in await queue.take(3, visibility):
                assert until.get(each.id, 0.0) <= loop.time() + 0.002, "it was still held"
                until[each.id] = asked + visibility
                if each.attempt > 2:  # others are left to come again
                    try:
                        await queue.ack(each)
                    except DeliveryLost:
                        visibility *= 2  # on a machine as busy as this it was too short
                    else:
                        done.add(each.id)
            await asyncio.sleep(0.001)

    async with asyncio.timeout(PATIENT):
        await asyncio.gather(consume(consumers[0], 0.05), consume(consumers[1], 0.08))
    assert done == set(ids)
    for queue in consumers:
        await queue.close()


def _consume(url: str, name: str, taken: "multiprocessing.queues.Queue[str]") -> None:
    async def consume() -> None:
        queue = RedisQueue(url, name)
        for each in await queue.take(5, 1.5):
            taken.put(each.id)
        await asyncio.sleep(LONG)

    asyncio.run(consume())


async def test_what_a_killed_consumer_held_comes_again_after_its_visibility(
    redis_server: RedisServer, queue: RedisQueue, name: str
) -> None:
    ids = {await queue.put(b"%d" % number) for number in range(5)}
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    consumer = context.Process(target=_consume, args=(redis_server.url, name, taken))
    consumer.start()
    assert {await asyncio.to_thread(taken.get, timeout=PATIENT) for _ in ids} == ids
    consumer.kill()
    consumer.join()
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENT):
        while len(found) < len(ids):
            found += await queue.take(5, LONG)
            await asyncio.sleep(0.01)
    assert {each.id for each in found} == ids
    assert {each.attempt for each in found} == {2}


async def test_a_redis_that_was_emptied_is_a_queue_that_is_empty(
    queue: RedisQueue, redis_server: RedisServer
) -> None:
    from redis.asyncio import Redis

    await queue.put(b"gone")
    (delivery,) = await queue.take(1, LONG)
    redis = Redis.from_url(redis_server.url)
    await redis.flushall()
    await redis.aclose()
    assert await queue.depth() == Depth()
    await queue.ack(delivery)
    await queue.put(b"new")
    assert [each.message for each in await queue.take(2, LONG)] == [b"new"]


async def test_what_is_done_leaves_nothing_in_redis(
    queue: RedisQueue, redis_server: RedisServer, name: str
) -> None:
    from redis.asyncio import Redis

    for number in range(3):
        await queue.put(b"%d" % number, delay=0.001 * number)
    await asyncio.sleep(0.01)
    for delivery in await everything(queue):
        await queue.ack(delivery)
    redis = Redis.from_url(redis_server.url)
    left = [key async for key in redis.scan_iter(match=f"*{name}*")]
    assert left == [f"{{martlet:queue:{name}}}:stream".encode()]
    assert await redis.xlen(left[0]) == 0
    await redis.aclose()


async def test_a_password_is_not_told(redis_server: RedisServer, name: str) -> None:
    queue = RedisQueue(f"redis://user:the-password@127.0.0.1:{redis_server.port}", name)
    with pytest.raises(QueueError) as caught:
        await queue.depth()
    assert "the-password" not in str(caught.value)
    await queue.close()


def test_nothing_else_takes_the_library() -> None:
    modules = "martlet.serve.lane, martlet.storage.memory_queue, martlet.storage.sqlite_queue"
    code = f"import sys; sys.modules['redis'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
