"""What a lane may hold is counted as instances come and go, and nobody waits while a lane looks after all of them."""

import asyncio

import pytest

from martlet.drivers.driver import LoadFailed
from martlet.errors import FunctionLoadFailed
from martlet.node import housekeeping
from martlet.node.pool import Pool
from tests.unit.node.test_keeping import Lane, until

pytestmark = pytest.mark.anyio


async def test_instances_take_room_from_when_they_are_begun_until_they_end(tmp_path):
    async with Lane(tmp_path, max_concurrent_functions=3) as lane:
        room, pools = lane.node.room, [await lane.deploy("f"), await lane.deploy("g")]
        pools[0].starting += 1
        assert room.left == 2
        first = await pools[0].add_instance()
        await lane.add_instance(pools[1])
        assert room.left == 1
        first.end()
        first.end()
        assert room.left == 2


async def test_a_start_that_failed_takes_no_room(tmp_path):
    async with Lane(tmp_path, max_concurrent_functions=3) as lane:
        pool = await lane.deploy()
        lane.driver.faults.load["f"] = LoadFailed("Error", "no")
        with pytest.raises(FunctionLoadFailed):
            await lane.add_instance(pool)
        assert lane.node.room.left == 3


async def test_where_there_is_no_room_what_is_idle_longest_makes_some(tmp_path):
    async with Lane(tmp_path, max_concurrent_functions=2) as lane:
        pools = [await lane.deploy(name) for name in ("f", "g", "h")]
        for pool in pools:
            await lane.add_instance(pool)
        assert [pool.held for pool in pools] == [0, 1, 1]


async def test_requests_have_their_turn_while_a_lane_looks_after_many_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(housekeeping, "EVERY", 0.01)
    monkeypatch.setattr(housekeeping, "AT_ONCE", 1)
    seen, look = [], Pool.look

    def seen_to(pool, now):
        asyncio.get_running_loop().call_soon(seen.append, "a request")
        seen.append(pool.revision.function)
        look(pool, now)

    async with Lane(tmp_path) as lane:
        for name in ("f", "g"):
            await lane.deploy(name)
        monkeypatch.setattr(Pool, "look", seen_to)
        looking = asyncio.create_task(lane.housekeeping.run())
        await until(lambda: "g" in seen)
        looking.cancel()
    assert seen[:3] == ["f", "a request", "g"]
