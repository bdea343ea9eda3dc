"""Sweeps of packages and deploys of other machines do not go on at once."""

import asyncio

import pytest

from martlet.control import sweeping
from martlet.control.queue import PREFIX, Queue
from martlet.control.sweeping import Sweeping
from martlet.model import Waiting
from martlet.storage.blobs import Blobs
from martlet.storage.registry import Registry
from tests.contract.conftest import Connect

pytestmark = pytest.mark.anyio

DIGEST = "4" * 64


async def machine(connect: Connect, name: str) -> tuple[Sweeping, Queue, Registry]:
    store = await connect()
    registry = Registry(store)
    queue = Queue(registry, Blobs.memory(), name)
    return Sweeping(store, queue, name), queue, registry


def deploy(node: str) -> Waiting:
    return Waiting(
        build="b1",
        node=node,
        function="hello",
        kind="nothing",
        config={},
        expect="either",
        replace=False,
        upgrade=False,
        attempts=1,
        started=1.0,
    )


async def test_who_deploys_waits_until_the_sweep_of_another_is_over(connect: Connect) -> None:
    (sweeps, *_), (deploys, _, registry) = await machine(connect, "one"), await machine(connect, "two")
    async with sweeps.begin() as may:
        assert may
        await registry.put_waiting(deploy("two"))
        waiting = asyncio.create_task(deploys.over())
        await asyncio.wait({waiting}, timeout=3 * sweeping.LOOK_SECONDS)
        assert not waiting.done()
    async with asyncio.timeout(10):
        await waiting


async def test_nobody_sweeps_while_another_deploys(connect: Connect) -> None:
    (sweeps, *_), (deploys, queue, registry) = await machine(connect, "one"), await machine(connect, "two")
    await registry.put_waiting(deploy("two"))
    await deploys.over()
    async with sweeps.begin() as may:
        assert not may
    async with deploys.begin() as may:  # its own deploys it knows
        assert may
    hold = await queue.take(*await registry.read_waiting("b1"))
    assert hold is not None
    await queue.drop(hold)
    async with sweeps.begin() as may:
        assert may


async def test_who_deploys_does_not_wait_for_sweeps_of_its_own(connect: Connect) -> None:
    own, *_ = await machine(connect, "one")
    async with own.begin() as may:
        assert may
        async with asyncio.timeout(10):
            await own.over()


async def test_of_two_that_sweep_at_once_one_does(connect: Connect) -> None:
    (first, *_), (second, *_) = await machine(connect, "one"), await machine(connect, "two")
    async with first.begin() as one:
        async with second.begin() as other:
            assert (one, other) == (True, False)
        async with second.begin() as other:  # it has not ended the sweep of the first
            assert not other
    async with second.begin() as other:
        assert other


async def test_what_an_earlier_life_was_killed_in_stops_neither_the_next_nor_others_for_long(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "LEASE_SECONDS", 1.0)
    (own, *_), (other, *_) = await machine(connect, "one"), await machine(connect, "two")
    store = await connect()
    await store.put(sweeping.KEY, b"one", lease=await store.lease(1.0))
    async with asyncio.timeout(15):
        await own.over()
        await other.over()
    await store.put(sweeping.KEY, b"one")
    async with own.begin() as may:
        assert may
    async with other.begin() as may:
        assert may


async def test_a_sweep_that_takes_too_long_is_ended(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "MOST_SECONDS", 0.2)
    (sweeps, *_), (deploys, *_) = await machine(connect, "one"), await machine(connect, "two")
    with pytest.raises(TimeoutError):
        async with sweeps.begin():
            await asyncio.sleep(60)
    async with asyncio.timeout(10):
        await deploys.over()


async def test_an_upload_stays_that_another_machine_may_be_about_to_queue(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, blobs = Registry(await connect()), Blobs.memory()
    shared, alone = Queue(registry, blobs, "one"), Queue(registry, blobs, "one", shared=False)
    await blobs.put(PREFIX, DIGEST, b"sent")
    await shared.sweep()
    await shared.sweep()
    assert await blobs.exists(PREFIX, DIGEST)
    monkeypatch.setattr(shared, "_grace", 0.0)  # that time has passed
    await shared.sweep()
    assert not await blobs.exists(PREFIX, DIGEST)
    await blobs.put(PREFIX, DIGEST, b"sent")
    await alone.sweep()
    assert not await blobs.exists(PREFIX, DIGEST)
