"""What every `Queue` does."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from martlet.storage.memory_queue import MemoryQueue
from martlet.storage.queue import (
    MAX_VISIBILITY,
    Delivery,
    DeliveryLost,
    Depth,
    Queue,
    QueueError,
    QueueFull,
)
from martlet.storage.redis_queue import RedisQueue
from martlet.storage.sqlite_queue import SqliteQueue

pytestmark = pytest.mark.anyio

MOST = 3
LONG = 600.0
"""A visibility, or a delay, that no test outlives."""
SHORT = 0.05
"""One that tests wait for."""

Connect = Callable[..., Awaitable[Queue]]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens a queue; called again, it opens the same one as another client does; with a name, another one."""
    opened: list[Queue] = []
    unique = secrets.token_hex(4)
    redis = request.getfixturevalue("redis_server") if request.param == "redis" else None

    async def connect(name: str = "queue") -> Queue:
        if redis is not None:
            opened.append(RedisQueue(redis.url, f"{unique}-{name}", max_deliveries=MOST))
        elif request.param == "sqlite":
            opened.append(await SqliteQueue.open(tmp_path / "queue.db", name, max_deliveries=MOST))
        elif not opened or name != "queue":
            opened.append(MemoryQueue(max_deliveries=MOST))
        return opened[-1]

    yield connect
    for queue in opened:
        await queue.close()


@pytest.fixture
async def queue(connect: Connect) -> Queue:
    return await connect()


async def taken(queue: Queue, n: int = 1, visibility: float = LONG) -> Sequence[Delivery]:
    """Takes ``n`` messages, as soon as there are so many."""
    found: list[Delivery] = []
    async with asyncio.timeout(60):
        while len(found) < n:
            found += await queue.take(n - len(found), visibility)
            await asyncio.sleep(0.005)
    return found


async def kill(queue: Queue, message: bytes = b"bad") -> str:
    """Makes a dead letter of a message; returns its id."""
    message_id = await queue.put(message)
    for _ in range(MOST):
        (delivery,) = await queue.take(1, LONG)
        await queue.nack(delivery)
    return message_id


@pytest.mark.parametrize("message", [b"", b"hello", bytes(range(256)), b"x" * 1_000_000])
async def test_a_message_is_delivered_as_it_was_put(queue: Queue, message: bytes) -> None:
    message_id = await queue.put(message)
    (delivery,) = await queue.take(1, LONG)
    assert (delivery.id, delivery.message, delivery.attempt) == (message_id, message, 1)


async def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert list(await queue.take(10, LONG)) == []
    assert await queue.depth() == Depth()


async def test_messages_come_in_the_order_they_were_put_and_at_most_so_many(queue: Queue) -> None:
    for number in range(5):
        await queue.put(b"%d" % number)
    assert [each.message for each in await queue.take(3, LONG)] == [b"0", b"1", b"2"]
    assert [each.message for each in await queue.take(3, LONG)] == [b"3", b"4"]


async def test_what_is_acknowledged_never_comes_again(queue: Queue) -> None:
    await queue.put(b"once")
    (delivery,) = await queue.take(1, SHORT)
    await queue.ack(delivery)
    await queue.ack(delivery)
    assert await queue.depth() == Depth()
    await asyncio.sleep(2 * SHORT)
    assert list(await queue.take(1, LONG)) == []


async def test_what_is_held_is_nobody_elses(connect: Connect) -> None:
    one, other = await connect(), await connect()
    await one.put(b"mine")
    await one.take(1, LONG)
    assert list(await other.take(1, LONG)) == []
    assert await other.depth() == Depth(taken=1)


async def test_what_is_not_acknowledged_in_time_comes_again(connect: Connect) -> None:
    one, other = await connect(), await connect()
    message_id = await one.put(b"again")
    began = time.monotonic()
    await one.take(1, 10 * SHORT)
    (delivery,) = await taken(other)
    assert time.monotonic() - began >= 10 * SHORT - 0.002  # clocks of whole milliseconds
    assert (delivery.id, delivery.message, delivery.attempt) == (message_id, b"again", 2)


async def test_a_delivery_that_was_lost_can_do_nothing_any_more(queue: Queue) -> None:
    await queue.put(b"again")
    (first,) = await queue.take(1, SHORT)
    (second,) = await taken(queue)
    for attempt in (queue.ack(first), queue.nack(first), queue.extend(first, LONG)):
        with pytest.raises(DeliveryLost):
            await attempt
    assert await queue.depth() == Depth(taken=1)
    await queue.ack(second)
    await queue.ack(first)  # it is done, and so nothing is wrong
    assert await queue.depth() == Depth()


async def test_late_is_not_too_late_while_nobody_else_has_it(queue: Queue) -> None:
    await queue.put(b"late")
    (delivery,) = await queue.take(1, SHORT)
    await asyncio.sleep(2 * SHORT)
    await queue.ack(delivery)
    assert await queue.depth() == Depth()


async def test_a_delivery_that_is_extended_is_held_longer(queue: Queue) -> None:
    await queue.put(b"slow")
    (delivery,) = await queue.take(1, SHORT)
    await queue.extend(delivery, LONG)
    await asyncio.sleep(2 * SHORT)
    assert list(await queue.take(1, LONG)) == []
    await queue.extend(delivery, SHORT)
    assert [each.attempt for each in await taken(queue)] == [2]


async def test_each_delivery_has_its_own_visibility(queue: Queue) -> None:
    for message in (b"long", b"short"):
        await queue.put(message)
    await queue.take(1, LONG)
    await queue.take(1, SHORT)
    assert [each.message for each in await taken(queue)] == [b"short"]


async def test_what_is_given_back_comes_again_at_once_or_later(queue: Queue) -> None:
    await queue.put(b"back")
    (delivery,) = await queue.take(1, LONG)
    await queue.nack(delivery)
    await queue.nack(delivery)
    assert await queue.depth() == Depth(ready=1)
    (delivery,) = await queue.take(1, LONG)
    assert delivery.attempt == 2
    await queue.nack(delivery, delay=SHORT)
    assert [each.attempt for each in await taken(queue)] == [3]


async def test_what_was_given_back_is_not_held_and_not_acknowledged(queue: Queue) -> None:
    await queue.put(b"back")
    (delivery,) = await queue.take(1, LONG)
    await queue.nack(delivery, LONG)
    await queue.ack(delivery)
    with pytest.raises(DeliveryLost):
        await queue.extend(delivery, LONG)
    assert await queue.depth() == Depth(delayed=1)


async def test_a_delayed_message_comes_later(queue: Queue) -> None:
    await queue.put(b"much later", delay=LONG)
    await queue.put(b"now")
    assert await queue.depth() == Depth(ready=1, delayed=1)
    assert [each.message for each in await queue.take(3, LONG)] == [b"now"]
    began = time.monotonic()
    await queue.put(b"later", delay=20 * SHORT)
    assert [each.message for each in await taken(queue)] == [b"later"]
    assert time.monotonic() - began >= 20 * SHORT - 0.002


async def test_what_is_put_under_the_same_name_is_put_once(connect: Connect) -> None:
    one, other = await connect(), await connect()
    first = await one.put(b"first", dedupe="order 7")
    assert await other.put(b"second", dedupe="order 7") == first
    assert await one.put(b"another", dedupe="order 8") != first
    assert await one.depth() == Depth(ready=2)
    (delivery, _) = await one.take(2, LONG)
    assert delivery.message == b"first"
    await one.ack(delivery)
    assert await other.put(b"third", dedupe="order 7") == first, "also when it is done"
    assert await one.depth() == Depth(taken=1)


async def test_many_who_put_the_same_at_once_put_it_once(connect: Connect) -> None:
    queues = [await connect() for _ in range(2)]
    ids = await asyncio.gather(*(queues[n % 2].put(b"%d" % n, dedupe="same") for n in range(20)))
    assert len(set(ids)) == 1
    assert await queues[0].depth() == Depth(ready=1)


async def test_what_is_given_back_too_often_is_a_dead_letter(queue: Queue) -> None:
    before = time.time() - 1
    message_id = await kill(queue)
    assert list(await queue.take(1, LONG)) == []
    assert await queue.depth() == Depth(dead=1)
    (letter,) = await queue.dead_letters()
    assert (letter.id, letter.message, letter.attempts) == (message_id, b"bad", MOST)
    assert before < letter.died < time.time() + 1


async def test_what_was_not_tried_never_dies_of_being_given_back(queue: Queue) -> None:
    message_id = await queue.put(b"patient")
    (first,) = await queue.take(1, LONG)
    await queue.nack(first)
    for _ in range(2 * MOST):
        (delivery,) = await queue.take(1, LONG)
        assert (delivery.id, delivery.attempt) == (message_id, 2)
        await queue.nack(delivery, tried=False)
        await queue.nack(delivery, tried=False)
    with pytest.raises(DeliveryLost):
        await queue.extend(delivery, LONG)
    (delivery,) = await queue.take(1, LONG)
    await queue.nack(delivery, LONG, tried=False)
    assert await queue.depth() == Depth(delayed=1)


async def test_a_queue_takes_no_more_than_it_may_have(connect: Connect) -> None:
    one, other = await connect(), await connect()
    first = await one.put(b"first", dedupe="name", most=3)
    await other.put(b"second", delay=LONG, most=3)
    await other.put(b"third", most=3)
    await one.take(1, LONG)
    for queue in (one, other):
        with pytest.raises(QueueFull):
            await queue.put(b"too many", most=3)
    assert await one.put(b"the same", dedupe="name", most=3) == first, "which is there already"
    with pytest.raises(QueueFull):
        await one.put(b"too many", dedupe="refused", most=3)
    (third,) = await one.take(1, LONG)
    await one.ack(third)
    assert await one.put(b"there is room", dedupe="refused", most=3) != first, "a name is not used up"
    assert await one.depth() == Depth(ready=1, delayed=1, taken=1)


async def test_dead_letters_take_no_room(queue: Queue) -> None:
    dead = await kill(queue)
    waiting = await queue.put(b"room", most=1)
    assert (await queue.is_dead(dead), await queue.is_dead(waiting)) == (True, False)
    assert not await queue.is_dead("nothing")


async def test_what_nobody_finishes_is_a_dead_letter(queue: Queue) -> None:
    await queue.put(b"crash")
    for attempt in range(1, MOST + 1):
        assert [each.attempt for each in await taken(queue, 1, SHORT)] == [attempt]
    async with asyncio.timeout(60):
        while (await queue.depth()).dead == 0:
            assert list(await queue.take(1, SHORT)) == []
            await asyncio.sleep(0.01)
    assert [letter.attempts for letter in await queue.dead_letters()] == [MOST]


async def test_a_dead_letter_may_be_tried_again_as_if_it_were_new(queue: Queue) -> None:
    message_id = await queue.put(b"bad")
    for _ in range(MOST):
        (last,) = await queue.take(1, LONG)
        await queue.nack(last)
    assert await queue.requeue(message_id)
    assert not await queue.requeue(message_id)
    assert await queue.depth() == Depth(ready=1)
    (delivery,) = await queue.take(1, LONG)
    assert (delivery.id, delivery.message, delivery.attempt) == (message_id, b"bad", 1)
    for old in (last, replace(last, attempt=1)):
        with pytest.raises(DeliveryLost):
            await queue.ack(old)
    await queue.ack(delivery)
    assert await queue.depth() == Depth()


async def test_a_dead_letter_may_be_dropped(queue: Queue) -> None:
    message_id = await kill(queue)
    assert await queue.drop(message_id)
    assert not await queue.drop(message_id)
    assert not await queue.requeue(message_id)
    assert await queue.depth() == Depth()


async def test_only_dead_letters_are_requeued_and_dropped(queue: Queue) -> None:
    waiting = await queue.put(b"waiting")
    for message_id in (waiting, "nothing"):
        assert not await queue.requeue(message_id)
        assert not await queue.drop(message_id)
    assert await queue.depth() == Depth(ready=1)


async def test_dead_letters_are_listed_oldest_first_up_to_a_limit(queue: Queue) -> None:
    ids = []
    for number in range(3):
        ids.append(await kill(queue, b"%d" % number))
        await asyncio.sleep(0.002)
    assert [letter.id for letter in await queue.dead_letters()] == ids
    assert [letter.id for letter in await queue.dead_letters(2)] == ids[:2]


async def test_queues_know_nothing_of_each_other(connect: Connect) -> None:
    one, other = await connect(), await connect("other")
    first = await one.put(b"one", dedupe="name")
    assert await other.put(b"other", dedupe="name") != first
    assert [each.message for each in await other.take(5, LONG)] == [b"other"]
    dead = await kill(one)
    assert list(await other.dead_letters()) == []
    assert not await other.drop(dead)
    assert await other.depth() == Depth(taken=1)


async def test_many_consumers_share_the_messages_and_hold_none_twice(connect: Connect) -> None:
    queues = [await connect() for _ in range(3)]
    put = await asyncio.gather(*(queues[n % 3].put(b"%d" % n) for n in range(60)))
    seen: list[str] = []

    async def consume(queue: Queue) -> None:
        while deliveries := await queue.take(4, LONG):
            seen.extend(each.id for each in deliveries)
            for each in deliveries:
                await queue.ack(each)

    await asyncio.gather(*map(consume, queues))
    assert sorted(seen) == sorted(put)
    assert await queues[0].depth() == Depth()


@pytest.mark.parametrize("visibility", [0, -1, MAX_VISIBILITY + 1])
async def test_nobody_holds_a_message_for_no_time_or_for_ever(queue: Queue, visibility: float) -> None:
    await queue.put(b"held")
    with pytest.raises(ValueError, match="held for more than 0"):
        await queue.take(1, visibility)
    (delivery,) = await queue.take(1, LONG)
    with pytest.raises(ValueError, match="held for more than 0"):
        await queue.extend(delivery, visibility)


async def test_a_closed_queue_says_so(queue: Queue) -> None:
    await queue.close()
    await queue.close()
    with pytest.raises(QueueError, match="closed"):
        await queue.put(b"")
