"""Instances that a lane finds living when it starts anew, and that are slow to answer."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from martlet.node import adoption
from martlet.node.adoption import Record
from tests.unit.node.test_keeping import Lane

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def one_of_a_former_life(folder, monkeypatch):
    """Lends a lane and its pool whose only instance lives, is noted down, and answers once the event is set."""
    answers, check_health = asyncio.Event(), adoption.check_health

    async def late(socket, patience):
        await answers.wait()
        await check_health(socket, patience)

    monkeypatch.setattr(adoption, "check_health", late)
    monkeypatch.setattr(adoption, "PATIENCE", 0.0)

    async def hold(_digest, since):
        return True

    async with Lane(folder) as lane:
        lane.node.packages.hold = hold
        pool = await lane.deploy()
        await lane.add_instance(pool)
        (instance,) = pool.instances
        Record.of(instance).write()
        for slot in instance.slots:
            slot.closed = True  # by us, and no end of the instance
            slot.close()
        pool.instances.clear()
        pool.idle.clear()
        lane.node.instances.clear()
        await lane.node._adoption.run()
        yield lane, pool, answers, instance.handle.id
        answers.set()


def ids(pool):
    return [instance.handle.id for instance in pool.instances]


async def test_calls_wait_for_it_and_start_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(adoption, "EXPECTED_SECONDS", 600.0)
    async with one_of_a_former_life(tmp_path, monkeypatch) as (lane, pool, answers, known):
        asked = asyncio.create_task(lane.invoke())
        while not pool.waiting:
            await asyncio.sleep(0.005)
        assert pool.held == 1
        answers.set()
        await asked
        assert ids(pool) == [known]
        assert pool.held == 1


async def test_nobody_waits_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(adoption, "EXPECTED_SECONDS", 0.05)
    async with one_of_a_former_life(tmp_path, monkeypatch) as (lane, pool, _, known):
        await lane.invoke()
        assert len(ids(pool)) == 1
        assert known not in ids(pool)
