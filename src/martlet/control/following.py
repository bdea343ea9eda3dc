"""The lines of a function as they come, from the lanes of all machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from itertools import chain
from time import monotonic, time
from types import TracebackType
from typing import Self

import httpx2

from martlet.control.events import Aside
from martlet.control.machines import Lane, Machines
from martlet.control.settling import Settling
from martlet.control.shelves import NAME
from martlet.model import LogLine

MOST_HELD = 10_000
"""Lines that wait for somebody who takes them slowly; then the lanes wait, which drop the oldest."""
SETTLE = 0.1
"""Seconds that lines wait for older ones of another lane of this machine."""
SETTLE_ACROSS = 0.5
"""The same, where there are other machines."""
LOOK_AGAIN = 1.0
"""Seconds between two looks for lanes that have come, or come back."""


class Missing(Aside):
    """The machines whose lines are not among those that follow, by their ids: they do not answer now."""

    missing: tuple[str, ...]


class Following:
    """Follows a function on every lane there is, while it is entered.

    Args:
        machines: where the lanes are.
        function: whose lines.
        since: by lane, the time after which its lines are wanted; of other lanes all are that they have from now on.
        missing: the machines that are known not to answer.
    """

    def __init__(
        self, machines: Machines, function: str, since: dict[Lane, float], missing: Collection[str]
    ) -> None:
        self._machines = machines
        self._function = function
        self._since = since
        self._began = time()
        self._arrived: asyncio.Queue[LogLine | Missing] = asyncio.Queue(MOST_HELD)
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._away = {lane for lane in machines.lanes if lane.machine in missing}
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [task for task in (self._looking, *self._tasks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def lines(self) -> AsyncIterator[LogLine | Missing]:
        """Yields the lines in the order of time (see `Settling`), and which machines are missing when that changes."""
        across = len({lane.machine for lane in self._machines.lanes}) > 1
        settling = Settling(SETTLE_ACROSS if across else SETTLE)
        missing: tuple[str, ...] = ()
        while True:
            arrived = await self._next(settling)
            if isinstance(arrived, LogLine):
                settling.add(arrived, monotonic())
            elif arrived is not None and arrived.missing != missing:
                missing = arrived.missing
                yield arrived
            for line in settling.due(monotonic()):
                yield line

    async def _next(self, settling: Settling) -> LogLine | Missing | None:
        """Returns what comes next; None once a line is due."""
        wait = settling.wait(monotonic())
        if len(settling) >= MOST_HELD:
            await asyncio.sleep(wait or 0.0)
            return None
        try:
            async with asyncio.timeout(wait):
                return await self._arrived.get()
        except TimeoutError:
            return None

    async def _look(self) -> None:
        """Follows lanes that have come or come back, and no longer those that have gone."""
        while True:
            lanes = self._machines.lanes
            for lane in self._tasks.keys() - set(lanes):
                self._tasks.pop(lane).cancel()
                self._away.discard(lane)
            for lane in lanes:
                if lane not in self._tasks or self._tasks[lane].done():
                    self._tasks[lane] = asyncio.create_task(self._follow(lane))
            await self._arrived.put(Missing(missing=tuple(sorted({lane.machine for lane in self._away}))))
            await asyncio.sleep(LOOK_AGAIN)

    async def _follow(self, lane: Lane) -> None:
        """Takes the lines of one lane until it ends."""
        try:
            since = self._since.setdefault(lane, self._began)
            async with self._machines.following(lane, self._function, MOST_HELD, since) as lines:
                self._away.discard(lane)
                async for line in lines:
                    self._since[lane] = line.time
                    await self._arrived.put(line)
        except httpx2.TransportError:
            self._away.add(lane)


async def followed(machines: Machines, function: str, tail: int) -> AsyncIterator[LogLine | Missing]:
    """Yields the last ``tail`` lines of a function and then those to come, as the lanes of all machines have them."""
    past = await machines.logs(function, max(tail, 1))
    for line in in_order([lines for _, lines in past.things], tail):
        yield line
    if NAME in past.missing:
        yield Missing(missing=past.missing)
    since = {lane: lines[-1].time if lines else 0.0 for lane, lines in past.things}
    async with Following(machines, function, since, past.missing) as following:
        async for each in following.lines():
            yield each


def in_order(of_each: list[list[LogLine]], tail: int) -> list[LogLine]:
    """Returns the last ``tail`` lines of all lanes, oldest first."""
    return sorted(chain(*of_each), key=lambda line: line.time)[-tail:] if tail else []
