"""Who has a deploy of the queue: one machine at a time, and whoever had it before writes nothing any more."""

import asyncio

import pytest

from martlet.builder.builds import new_build
from martlet.control.queue import Queue
from martlet.errors import Conflict
from martlet.model import Waiting
from martlet.storage.blobs import Blobs
from martlet.storage.registry import Registry
from martlet.storage.store import GuardLost
from tests.contract.conftest import Connect

pytestmark = pytest.mark.anyio


async def machine(connect: Connect, name: str) -> tuple[Queue, Registry]:
    registry = Registry(await connect())
    return Queue(registry, Blobs.memory(), name), registry


async def left(registry: Registry) -> tuple[Waiting, int]:
    """Puts a deploy into the queue that nobody has."""
    waiting = Waiting(
        build="b1",
        function="hello",
        kind="nothing",
        config={},
        expect="either",
        replace=False,
        upgrade=False,
        attempts=0,
        started=1.0,
    )
    return waiting, await registry.put_waiting(waiting)


async def test_of_many_that_take_a_deploy_at_once_one_has_it(connect: Connect) -> None:
    machines = [await machine(connect, f"m{number}") for number in range(5)]
    found = await left(machines[0][1])
    holds = await asyncio.gather(*(queue.take(*found) for queue, _ in machines))
    (winner,) = (number for number, hold in enumerate(holds) if hold is not None)
    ((waiting, _),) = await machines[0][0].written()
    assert (waiting.node, waiting.attempts) == (f"m{winner}", 1)


async def test_who_had_it_writes_nothing_once_another_has_taken_it(connect: Connect) -> None:
    (first, registry), (second, _) = await machine(connect, "first"), await machine(connect, "second")
    before = await first.take(*await left(registry))
    assert before is not None
    build = new_build("hello", "b1")
    await before.registry.put_build(build)
    ((waiting, written),) = await second.written()
    after = await second.take(waiting, written)
    assert after is not None
    with pytest.raises(GuardLost):
        await before.registry.put_build(build.model_copy(update={"node": "first"}))
    await after.registry.put_build(build.model_copy(update={"node": "second"}))
    assert (await registry.get_build("b1")).node == "second"
    ((waiting, written),) = await first.written()
    assert not before.heed(waiting, written)
    assert after.heed(waiting, written)
    assert waiting.attempts == 2


async def test_who_is_told_to_cancel_may_still_say_that_it_has(connect: Connect) -> None:
    (queue, registry), (_, other) = await machine(connect, "builds"), await machine(connect, "asks")
    hold = await queue.take(*await left(registry))
    assert hold is not None
    assert not await hold.is_cancelled()
    waiting, written = await other.read_waiting("b1")
    await other.put_waiting(waiting.model_copy(update={"cancelled": True}), expect_revision=written)
    with pytest.raises(GuardLost):  # so nothing takes effect that was begun before
        await hold.registry.put_build(new_build("hello", "b1"))
    assert await hold.is_cancelled()
    await hold.registry.put_build(new_build("hello", "b1"))


async def test_what_is_released_is_for_others_and_was_no_attempt(connect: Connect) -> None:
    queue, registry = await machine(connect, "first")
    hold = await queue.take(*await left(registry))
    assert hold is not None
    await hold.release("squawk3")
    waiting, written = await registry.read_waiting("b1")
    assert (waiting.node, waiting.runtime, waiting.attempts) == ("", "squawk3", 0)
    assert not hold.heed(waiting, written)
    with pytest.raises(GuardLost):
        await hold.registry.put_build(new_build("hello", "b1"))


async def test_what_another_has_taken_up_is_not_dropped_by_who_had_it(connect: Connect) -> None:
    (first, registry), (second, _) = await machine(connect, "first"), await machine(connect, "second")
    before = await first.take(*await left(registry))
    after = await second.take(*await registry.read_waiting("b1"))
    assert before is not None
    assert after is not None
    await first.drop(before)
    assert [each.node for each in await second.waiting()] == ["second"]
    await second.drop(after)
    assert await first.waiting() == []
    await second.drop(after)  # harmless


async def test_what_has_ended_is_dropped_though_somebody_has_cancelled_it_meanwhile(connect: Connect) -> None:
    (queue, registry), (_, other) = await machine(connect, "builds"), await machine(connect, "asks")
    hold = await queue.take(*await left(registry))
    assert hold is not None
    waiting, written = await other.read_waiting("b1")
    await other.put_waiting(waiting.model_copy(update={"cancelled": True}), expect_revision=written)
    await queue.drop(hold)
    assert await queue.waiting() == []


async def test_what_is_taken_up_meanwhile_is_not_withdrawn(connect: Connect) -> None:
    queue, registry = await machine(connect, "first")
    waiting, written = await left(registry)
    assert await queue.take(waiting, written) is not None
    with pytest.raises(Conflict):
        await queue.withdraw(waiting, written)
    await queue.withdraw(*await registry.read_waiting("b1"))
    assert await queue.waiting() == []


async def test_who_stops_keeps_it_and_its_attempt_does_not_count(connect: Connect) -> None:
    queue, registry = await machine(connect, "first")
    hold = await queue.take(*await left(registry))
    assert hold is not None
    await hold.stop()
    waiting, written = await registry.read_waiting("b1")
    assert (waiting.node, waiting.attempts, waiting.stops) == ("first", 1, 1)
    other, _ = await machine(connect, "second")
    assert await other.take(waiting, written) is not None
    await hold.stop()  # it is not its own any more
    assert (await registry.read_waiting("b1"))[0].stops == 1
