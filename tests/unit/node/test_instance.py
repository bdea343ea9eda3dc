"""The connections to an instance."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from martlet.drivers.driver import Loaded
from martlet.model import FunctionConfig
from martlet.node.instance import Instance

pytestmark = pytest.mark.anyio
CONCURRENCY = 5


async def test_who_asks_again_before_slots_are_open_opens_no_others(short_path):
    free, tasks = [], []
    node = SimpleNamespace(
        weighing=lambda _handle: None,
        settings=SimpleNamespace(cold_start_timeout=60.0),
        spawn=lambda work: tasks.append(asyncio.create_task(work)),
    )
    pool = SimpleNamespace(node=node, config=FunctionConfig(concurrency=CONCURRENCY), slot_free=free.append)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "sock"))
        listener.listen(CONCURRENCY)
        instance = Instance(pool, SimpleNamespace(socket=short_path / "sock"), Loaded("asgi", 0.0), 0.0)
        for _ in range(3):
            instance.open_slots(min(CONCURRENCY - 1, instance.wants_slots))
        assert instance.opening == CONCURRENCY
        await asyncio.gather(*tasks)
        assert (instance.opening, instance.wants_slots) == (0, 0)
        assert len(free) == CONCURRENCY
        assert {*free} == instance.slots
        instance.dead = True  # that its connections end is no news
        for slot in free:
            slot.close()
        await asyncio.sleep(0)
