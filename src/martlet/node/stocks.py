"""The ready cells of a lane: a stock for each rung, runtime and network that its functions use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from martlet.drivers.driver import Driver, Handle
from martlet.errors import Invalid, NoCapacity
from martlet.model import FunctionConfig, Network
from martlet.node.cells import CellStock
from martlet.settings import SystemSettings

Resolve = Callable[[str], tuple[str, int | None]]
"""Returns the exact name of a runtime (``python`` is ``python3.11``), and at most how many cells of it are to stand
ready, where it says so. Raises `Invalid`."""
Make = Callable[[Driver, str, Network, str | None, bool], Awaitable[Handle]]
"""Starts a cell of a runtime in a network, with the image that its function is, if it is one; whether it is urgent."""

_Key = tuple[str, str, Network]


class Stocks:
    """See the module."""

    def __init__(
        self, settings: SystemSettings, drivers: Mapping[str, Driver], resolve: Resolve, make: Make
    ) -> None:
        self._settings = settings
        self._drivers = drivers
        self._resolve = resolve
        self._make = make
        self._stocks: dict[_Key, CellStock] = {}

    def __len__(self) -> int:
        """Cells that are ready now."""
        return sum(map(len, self._stocks.values()))

    async def take(self, config: FunctionConfig) -> Handle:
        """Returns a cell for a function that nobody else gets. Of images there are none ready: only it could use them.

        Raises:
            Invalid: there is no such runtime.
            NoCapacity: this lane has no such rung.
            DriverError: it cannot be started.
        """
        if config.image is None:
            return await self.of(config.execution_mode, config.runtime, config.network).take()
        name, _ = self._resolve(config.runtime)
        driver = self._driver(config.execution_mode)
        return await self._make(driver, name, config.network, config.image, True)

    def of(self, mode: str, runtime: str, network: Network) -> CellStock:
        """Returns the cells of a runtime on a rung, in a network.

        Raises:
            Invalid: there is no such runtime.
            NoCapacity: this lane has no such rung.
        """
        name, most = self._resolve(runtime)
        key = (str(mode), name, network)
        if key not in self._stocks:
            driver, settings = self._driver(mode), self._settings
            self._stocks[key] = CellStock(
                settings.min_cells if most is None else min(settings.min_cells, most),
                settings.max_cells if most is None else min(settings.max_cells, most),
                lambda urgent: self._make(driver, name, network, None, urgent),
                driver.destroy,
            )
        return self._stocks[key]

    def _driver(self, mode: str) -> Driver:
        if mode not in self._drivers:
            raise NoCapacity(f"this machine does not run functions with execution_mode {str(mode)!r}")
        return self._drivers[mode]

    def keep(self, functions: Iterable[FunctionConfig]) -> None:
        """Keeps cells ready for these functions, and for ones that ask for nothing special; for no others."""
        usual = FunctionConfig()
        network = self._settings.default_network or Network.NONE
        wanted = {
            (each.execution_mode, each.runtime, each.network) for each in functions if each.image is None
        }
        wanted.add((self._settings.default_mode, usual.runtime, network))
        kept = []
        for each in wanted:
            with suppress(
                Invalid, NoCapacity
            ):  # what cannot be had here any more is refused when it is asked for
                kept.append(self.of(*each))
        for stock in self._stocks.values():
            stock.keep(stock in kept)

    def empty(self) -> None:
        """Keeps none ready from now on."""
        for stock in self._stocks.values():
            stock.keep(False)

    async def tidy(self) -> None:
        """Ends cells that are not wanted any more; called now and then."""
        for stock in tuple(self._stocks.values()):
            await stock.tidy()

    def drop(self, cell_id: str) -> Handle | None:
        """Takes a cell that has died out of its stock; returns it, or None if it is in none."""
        dropped = (stock.drop(cell_id) for stock in self._stocks.values())
        return next((cell for cell in dropped if cell is not None), None)

    def count(self) -> dict[str, int]:
        """Returns how many cells of each runtime are ready."""
        counts: dict[str, int] = {}
        for (_, runtime, _), stock in self._stocks.items():
            counts[runtime] = counts.get(runtime, 0) + len(stock)
        return counts

    async def close(self) -> None:
        """Destroys what is ready and makes no more."""
        for stock in self._stocks.values():
            await stock.close()
