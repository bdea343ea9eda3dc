"""Places of cells: one is made ahead once somebody has waited for a cell, and given to the next who does."""

import asyncio

import pytest

from martlet.drivers.driver import DriverError
from martlet.node import places as module
from martlet.node.places import Places

pytestmark = pytest.mark.anyio


class Host:
    """A driver that notes what it makes ahead, or cannot."""

    def __init__(self):
        self.made = []
        self.broken = False

    async def prepare(self, cell, directory):
        if self.broken:
            directory.rmdir()
            raise DriverError("no more")
        assert directory.is_dir()
        self.made.append(cell)


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(module, "PREPARE_DELAY", 0.02)
    return Host()


@pytest.fixture
def places(tmp_path, host):
    drivers = {"process": host, "fake": object()}
    return Places(3, tmp_path, drivers, asyncio.ensure_future)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_none_is_made_ahead_until_somebody_has_waited(places, host, tmp_path):
    made = [places.new(), places.new(), places.take("fake")]
    await asyncio.sleep(0.05)

    assert host.made == []
    assert {place.directory for place in made} == set(tmp_path.iterdir())
    assert all(place.id.startswith("3-") for place in made)


async def test_who_waits_next_gets_what_was_made_ahead_and_another_is_made(places, host):
    first = places.take("process")
    await until(lambda: host.made)
    second = places.take("process")
    assert [second.id] == host.made
    assert second.id != first.id
    await until(lambda: len(host.made) == 2)
    assert places.take("process").id == host.made[1]
    places.close()


async def test_none_is_made_in_a_row_of_starts(places, host):
    taken = set()
    for _ in range(20):
        taken.add(places.take("process").id)
        await asyncio.sleep(0)
    await until(lambda: host.made)
    await asyncio.sleep(0.05)

    assert len(host.made) == 1
    assert len(taken) == 20
    assert not taken & {*host.made}


async def test_one_that_cannot_be_made_is_tried_again_after_the_next_start(places, host, tmp_path):
    host.broken = True
    places.take("process")
    await asyncio.sleep(0.05)
    host.broken = False
    second = places.take("process")
    await until(lambda: host.made)

    assert second.id not in host.made
    assert places.take("process").id == host.made[0]
    places.close()


async def test_none_is_made_after_the_end(places, host):
    places.take("process")
    places.close()
    await asyncio.sleep(0.05)

    assert host.made == []
