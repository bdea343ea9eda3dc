"""Which cells a lane keeps ready."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from martlet.drivers.driver import CellSpec, DriverError, Handle
from martlet.drivers.fake import FakeDriver
from martlet.errors import Invalid, NoCapacity
from martlet.model import FunctionConfig, Network
from martlet.node.stocks import Stocks
from martlet.settings import SystemSettings

pytestmark = pytest.mark.anyio

RUNTIMES = {"python": ("python3.11", None), "node": ("node20", 1), "broken": ("broken1", None)}


def resolve(name: str) -> tuple[str, int | None]:
    if name not in RUNTIMES:
        raise Invalid(f"there is no {name}")
    return RUNTIMES[name]


@pytest.fixture
async def stocks(tmp_path: Path) -> AsyncIterator[Stocks]:
    """Stocks of a lane that keeps two cells of each kind."""
    driver, made = FakeDriver({}), []

    async def make(_: object, runtime: str, network: Network, image: str | None, urgent: bool) -> Handle:
        if runtime == "broken1":
            raise DriverError("its toolchain is broken")
        made.append(runtime)
        directory = tmp_path / str(len(made))
        directory.mkdir()
        return await driver.start(CellSpec(str(len(made)), runtime, network, directory, image, urgent))

    yield Stocks(SystemSettings(min_cells=2, max_cells=2), {"process": driver}, resolve, make)
    await driver.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_runtimes_that_functions_use_have_ready_cells_and_python_has(stocks: Stocks):
    stocks.keep([FunctionConfig(runtime="node", network="none")])

    await until(lambda: stocks.count() == {"python3.11": 2, "node20": 1})  # as many as it says at most
    await stocks.close()


async def test_a_function_that_is_an_image_gets_a_cell_when_it_needs_one_and_has_none_ready(stocks: Stocks):
    shop = FunctionConfig(runtime="node", network="none", execution_mode="process", image="shop")
    stocks.keep([shop])
    await until(lambda: len(stocks) == 2)

    first, second = await stocks.take(shop), await stocks.take(shop)

    assert first.id != second.id
    assert stocks.count() == {"python3.11": 2}
    await stocks.close()


async def test_cells_of_a_runtime_that_no_function_uses_any_more_end(stocks: Stocks):
    stocks.keep([FunctionConfig(runtime="node", network="none")])
    await until(lambda: len(stocks) == 3)

    stocks.keep([])
    await stocks.tidy()

    assert stocks.count() == {"python3.11": 2, "node20": 0}
    await stocks.close()


async def test_a_runtime_whose_cells_do_not_start_disturbs_no_other(stocks: Stocks):
    gone = FunctionConfig(runtime="cobol", network="none")
    stocks.keep(
        [
            gone,
            FunctionConfig(runtime="broken", network="none"),
            FunctionConfig(runtime="node", network="none"),
        ]
    )

    await until(lambda: stocks.count() == {"python3.11": 2, "node20": 1, "broken1": 0})
    with pytest.raises(DriverError, match="toolchain is broken"):
        await stocks.of("process", "broken", Network.NONE).take()
    await stocks.close()


async def test_a_rung_that_is_not_here_is_refused(stocks: Stocks):
    with pytest.raises(NoCapacity, match="microvm"):
        stocks.of("microvm", "python", Network.NONE)
