"""Ready cells: made ahead, never given twice, as many as are wanted."""

import asyncio
from itertools import count

import pytest

from martlet.drivers.driver import DriverError, Handle
from martlet.node import cells as module
from martlet.node.cells import CellStock

pytestmark = pytest.mark.anyio


class Factory:
    """Makes cells at once, or fails to."""

    def __init__(self):
        self.numbers = count()
        self.made, self.discarded, self.urgent = [], [], []
        self.broken = False

    async def make(self, urgent):
        await asyncio.sleep(0)
        self.urgent.append(urgent)
        if self.broken:
            raise DriverError("no more")
        handle = Handle(str(next(self.numbers)), "fake", "python3.11", "", "")
        self.made.append(handle)
        return handle

    async def discard(self, handle):
        self.discarded.append(handle)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def clock(monkeypatch):
    """The stock's clock, as a list with the time in it; nothing is waited for."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "REFILL_DELAY", 0.0)
    monkeypatch.setattr(module, "RETRY_DELAY", 0.0)
    return now


async def test_a_stock_fills_and_gives_each_cell_once(clock):
    factory = Factory()
    stock = CellStock(3, 3, factory.make, factory.discard)
    stock.keep(True)
    await until(lambda: len(stock) == 3)
    given = [(await stock.take()).id for _ in range(8)]
    assert len(set(given)) == 8
    await until(lambda: len(stock) == 3)
    await stock.close()
    assert {handle.id for handle in factory.discarded} == {h.id for h in factory.made} - set(given)


async def test_a_cell_that_somebody_waits_for_is_urgent_and_one_for_later_is_not(clock):
    factory = Factory()
    stock = CellStock(1, 1, factory.make, factory.discard)

    await stock.take()
    assert factory.urgent == [True]

    stock.keep(True)
    await until(lambda: len(stock) == 1)
    assert factory.urgent == [True, False]
    await stock.close()


async def test_it_grows_with_a_burst_and_shrinks_when_that_is_over(clock):
    factory = Factory()
    stock = CellStock(1, 4, factory.make, factory.discard)
    stock.keep(True)
    await until(lambda: len(stock) == 1)
    for _ in range(6):
        await stock.take()
    await until(lambda: len(stock) == 4)
    await stock.tidy()
    assert len(stock) == 4
    clock[0] += module.LATELY + 1
    for _ in range(5):
        await stock.tidy()
    assert len(stock) == 1
    await stock.close()


async def test_nothing_is_made_ahead_while_memory_is_short(clock, monkeypatch):
    monkeypatch.setattr(module, "available_share", lambda: 0.01)
    factory = Factory()
    stock = CellStock(3, 3, factory.make, factory.discard)
    stock.keep(True)
    assert (await stock.take()).id == "0"
    await asyncio.sleep(0.01)
    assert len(stock) == 0
    await stock.close()


async def test_it_goes_on_trying_where_cells_cannot_be_made(clock):
    factory = Factory()
    factory.broken = True
    stock = CellStock(2, 2, factory.make, factory.discard)
    stock.keep(True)
    with pytest.raises(DriverError):
        await stock.take()
    factory.broken = False
    await until(lambda: len(stock) == 2)
    await stock.close()


async def test_a_cell_that_died_is_replaced(clock):
    factory = Factory()
    stock = CellStock(2, 2, factory.make, factory.discard)
    stock.keep(True)
    await until(lambda: len(stock) == 2)
    assert stock.drop("0") is not None
    assert stock.drop("0") is None
    await until(lambda: len(stock) == 2)
    await stock.close()


async def test_what_no_function_uses_any_more_is_not_kept(clock):
    factory = Factory()
    stock = CellStock(2, 2, factory.make, factory.discard)
    stock.keep(True)
    await until(lambda: len(stock) == 2)
    stock.keep(False)
    for _ in range(3):
        await stock.tidy()
    assert len(stock) == 0
    stock.keep(True)
    await until(lambda: len(stock) == 2)
    await stock.close()
