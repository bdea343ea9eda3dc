"""Cells that stand ready, so that a first request does not wait for a sandbox to be made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from martlet.drivers.driver import DriverError, Handle
from martlet.node.memory import available_share
from martlet.scheduling.stock import LATELY, Demand, cells_wanted

log = structlog.get_logger()

REFILL_DELAY = 0.05
"""Seconds after a cell was taken until another is made: by then the request that took it has been answered."""
RETRY_DELAY = 1.0
AT_ONCE = 4


class CellStock:
    """Ready cells of one kind. Refilled off the request path.

    Args:
        least: how many to keep when none are wanted, while it is told to `keep` them.
        most: how many to keep at most after a burst.
        make: starts a cell; it is told whether that is urgent, since somebody waits to give it code.
        discard: destroys one.
    """

    def __init__(
        self,
        least: int,
        most: int,
        make: Callable[[bool], Awaitable[Handle]],
        discard: Callable[[Handle], Awaitable[None]],
    ) -> None:
        self._least, self._most = least, most
        self._make = make
        self._discard = discard
        self._ready: deque[Handle] = deque()
        self._taken: deque[float] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._closed = False
        self._kept = False

    def __len__(self) -> int:
        """Cells that are ready now."""
        return len(self._ready)

    def keep(self, kept: bool) -> None:
        """Says whether cells are to be ready also while none are wanted; that they are is seen to at once."""
        if kept and not self._kept:
            self._start_refill(0.0)
        self._kept = kept

    async def take(self) -> Handle:
        """Returns a cell that nobody else gets: a ready one, or a new one. Raises `DriverError`."""
        self._taken.append(monotonic())
        self._start_refill(REFILL_DELAY)
        return self._ready.popleft() if self._ready else await self._make(True)

    async def tidy(self) -> None:
        """Destroys a cell that is not wanted any more, if there is one; called now and then."""
        if len(self._ready) > max(self._floor, self._wanted()):
            await self._discard(self._ready.pop())

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

    @property
    def _floor(self) -> int:
        return self._least if self._kept else 0

    def _wanted(self) -> int:
        now = monotonic()
        while self._taken and now - self._taken[0] > LATELY:
            self._taken.popleft()
        return cells_wanted(Demand(self._floor, self._most, len(self._taken), available_share()))

    def _start_refill(self, delay: float) -> None:
        if self._refill is None and not self._closed and (self._least or self._most):
            self._refill = asyncio.get_running_loop().create_task(self._fill(delay))

    async def _fill(self, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            while (missing := self._wanted() - len(self._ready)) > 0:
                # What a cell waits for on its way costs nothing, so an empty stock makes some at a time.
                at_once = 1 if self._ready else min(missing, AT_ONCE)
                made = await asyncio.gather(
                    *(self._make(False) for _ in range(at_once)), return_exceptions=True
                )
                self._ready += [handle for handle in made if isinstance(handle, Handle)]
                errors = [error for error in made if isinstance(error, BaseException)]
                for error in errors:
                    fault = None if isinstance(error, DriverError) else error
                    log.warning("cell_not_started", error=str(error), exc_info=fault)
                if errors:
                    await asyncio.sleep(RETRY_DELAY)
        finally:
            self._refill = None
