"""The ids and folders of cells to come; one of them is ready before it is needed, with what its driver makes ahead."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from martlet.drivers.driver import Driver, DriverError, Preparing

log = structlog.get_logger()

PREPARE_DELAY = 0.05
"""Seconds in which nobody needs a cell until a place is made ahead: in a row of starts each makes its own."""


class Place(NamedTuple):
    """The id of a cell, and its folder, which is there."""

    id: str
    directory: Path


class Places:
    """See the module. A place is made ahead when somebody has waited for a cell, and the next may come as he did.

    Args:
        lane: number of the lane.
        folder: where the folders are.
        drivers: what starts cells.
        spawn: runs something beside everything else.
    """

    def __init__(
        self,
        lane: int,
        folder: Path,
        drivers: Mapping[str, Driver],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._lane = lane
        self._folder = folder
        self._spawn = spawn
        self._preparing = {name: each for name, each in drivers.items() if isinstance(each, Preparing)}
        self._ahead: dict[str, Place] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def new(self) -> Place:
        """Returns one that has a folder and nothing else."""
        cell = f"{self._lane}-{secrets.token_hex(5)}"
        directory = self._folder / cell
        directory.mkdir(mode=0o700, parents=True)
        return Place(cell, directory)

    def take(self, driver: str) -> Place:
        """Returns one for a cell of this driver that somebody waits for: that made ahead, where there is one."""
        if driver not in self._preparing:
            return self.new()
        if driver in self._timers:
            self._timers[driver].cancel()
        self._timers[driver] = asyncio.get_running_loop().call_later(PREPARE_DELAY, self._look, driver)
        return self._ahead.pop(driver, None) or self.new()

    def close(self) -> None:
        """Makes none ahead any more. What was made is its driver's to remove."""
        for timer in self._timers.values():
            timer.cancel()

    def _look(self, driver: str) -> None:
        if driver not in self._ahead:
            self._spawn(self._prepare(driver))

    async def _prepare(self, driver: str) -> None:
        try:
            place = self.new()
            await self._preparing[driver].prepare(*place)
        except (OSError, DriverError) as error:
            log.warning("place_not_made", error=str(error))
        else:
            self._ahead[driver] = place
