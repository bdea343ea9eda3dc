"""An instance may serve before its driver knows its process; who asks for that, and its record, get it."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from martlet.drivers.driver import DriverError
from martlet.node import adoption, node
from martlet.node.adoption import Record
from tests.unit.node.test_keeping import Lane, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def one_whose_process_is_unknown(folder, monkeypatch):
    """Lends a lane, its only instance, and what its process is to be set to, or why that will never be known."""
    monkeypatch.setattr(adoption, "RECORD_DELAY", 0.0)
    monkeypatch.setattr(node, "IDENTIFY_SECONDS", 0.05)
    pid = asyncio.get_running_loop().create_future()

    async def identify(handle):
        return replace(handle, pid=await asyncio.shield(pid))

    async with Lane(folder) as lane:
        lane.driver.identify = identify
        await lane.add_instance(await lane.deploy())
        (instance,) = lane.node.instances.values()
        yield lane, instance, pid


async def pids(lane):
    return [view.pid for view in await lane.node.views()]


async def test_it_is_noted_down_and_shown_with_its_process(tmp_path, monkeypatch):
    async with one_whose_process_is_unknown(tmp_path, monkeypatch) as (lane, instance, pid):
        directory = tmp_path / "lane-0" / instance.handle.id
        assert await pids(lane) == [None]  # it waits a moment, and not for ever
        assert Record.read(directory) is None

        asyncio.get_running_loop().call_soon(pid.set_result, 7)
        assert await pids(lane) == [7]
        await until(lambda: Record.read(directory) is not None)
        assert Record.read(directory).handle == instance.handle
        assert instance.handle.pid == 7


async def test_one_that_has_none_any_more_is_not_noted_down(tmp_path, monkeypatch):
    async with one_whose_process_is_unknown(tmp_path, monkeypatch) as (lane, instance, pid):
        pid.set_exception(DriverError("it is gone"))
        assert await pids(lane) == [None]
        await until(lambda: len(lane.node._tasks) == 0)
        assert Record.read(tmp_path / "lane-0" / instance.handle.id) is None
