"""Cells that stand ready, so that a first request does not wait for a sandbox to be made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from martlet.drivers.driver import DriverError, Handle

log = structlog.get_logger()

REFILL_DELAY = 0.05
"""Seconds after a cell was taken until another is made: by then the request that took it has been answered."""
RETRY_DELAY = 1.0


class CellStock:
    """Ready cells of one kind. Refilled off the request path, one at a time.

    Args:
        size: how many to keep.
        make: starts a cell.
        discard: destroys one.
    """

    def __init__(
        self, size: int, make: Callable[[], Awaitable[Handle]], discard: Callable[[Handle], Awaitable[None]]
    ) -> None:
        self.size = size
        self._make = make
        self._discard = discard
        self._ready: deque[Handle] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        """Cells that are ready now."""
        return len(self._ready)

    def open(self) -> None:
        """Begins to make cells."""
        self._start_refill(0.0)

    async def take(self) -> Handle:
        """Returns a cell that nobody else gets: a ready one, or a new one. Raises `DriverError`."""
        self._start_refill(REFILL_DELAY)
        return self._ready.popleft() if self._ready else await self._make()

    def drop(self, cell_id: str) -> Handle | None:
        """Takes a cell that has died out of the stock; returns it, or None if it is not here."""
        for handle in self._ready:
            if handle.id == cell_id:
                self._ready.remove(handle)
                self._start_refill(REFILL_DELAY)
                return handle
        return None

    async def close(self) -> None:
        """Destroys what is ready and makes no more."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)
        while self._ready:
            await self._discard(self._ready.popleft())

    def _start_refill(self, delay: float) -> None:
        if self._refill is None and not self._closed and self.size:
            self._refill = asyncio.get_running_loop().create_task(self._fill(delay))

    async def _fill(self, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            while len(self._ready) < self.size:
                try:
                    self._ready.append(await self._make())
                except DriverError as error:
                    log.warning("cell_not_started", error=str(error))
                    await asyncio.sleep(RETRY_DELAY)
        finally:
            self._refill = None
