"""Puts the logs and the history of a lane aside where they outlive the machine (`system.log_store`).

What has grown is shipped again every few seconds: the piece of a log that still grows as a whole, under its number. So
nothing is there twice, and a lane that was killed need not know how far it had come. The files are what waits: a store
that is out of reach costs no memory here, and what goes from them before it was shipped is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic

import structlog

from martlet.model import Function
from martlet.node.logs import LogStore
from martlet.storage.log_shelf import INVOCATIONS, LogShelf, ShelfError, Shelved, made_at
from martlet.storage.registry import RegistryView
from martlet.storage.store import StoreError
from martlet.telemetry.history import History
from martlet.telemetry.stats import LaneStats

log = structlog.get_logger()

EVERY = 5.0
"""Seconds between two rounds. The death of a machine costs that, the time that a round takes, and the second until
what has happened is in a file."""
PATIENCE = 60.0
"""Seconds for which a function may be in the making that has printed already."""
RATE = 4 * 1024 * 1024
"""Bytes a second that a lane ships."""
FAREWELL = 3.0
"""Seconds that a lane which ends has for what is left."""


class Shipping:
    """See the module.

    Args:
        shelf: where it is put.
        view: the functions.
        logs: of the lane.
        history: of the lane.
        stats: says how far it is behind.
        node: the id of this machine.
        lane: the name of this lane.
        every: seconds between two rounds.
    """

    def __init__(
        self,
        shelf: LogShelf,
        view: RegistryView,
        logs: LogStore,
        history: History,
        stats: LaneStats,
        node: str,
        lane: str,
        every: float = EVERY,
    ) -> None:
        self._shelf = shelf
        self._view = view
        self._logs = logs
        self._history = history
        self._stats = stats
        self._node = node
        self._lane = lane
        self._every = every
        self._grown: dict[str, float] = {}
        self._shipped: dict[tuple[str, int], dict[int, int]] = {}
        self._reached = True
        self._rounds: asyncio.Task[None] | None = None
        logs.on_growth = history.on_growth = self._note
        logs.files.on_dropped = self._dropped

    def open(self) -> None:
        """Begins, with what an earlier life has left."""
        self._rounds = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ships what is left, if that can be had soon."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(FAREWELL):
                self._logs.flush()
                await self._history.flush()
                await self.round()

    async def round(self) -> None:
        """Ships once what has grown."""
        for function, since in sorted(self._grown.items(), key=lambda grown: grown[1]):
            known = self._view.functions.get(function)
            if known is None:
                if monotonic() - since > PATIENCE:  # it was deleted, or never came to be
                    self._grown.pop(function, None)
                continue
            # What comes from now on is of the next round.
            if self._grown.pop(function, None) is None:
                continue
            try:
                await self._ship(known)
            except (ShelfError, StoreError, OSError) as error:
                self._grown[function] = since
                self._complain(error)
                break
            except BaseException:
                self._grown[function] = since
                raise
            self._reached = True
        self._forget()
        self._stats.logs_wait_since = min(self._known(), default=None)

    def _known(self) -> list[float]:
        """Returns since when functions that are there wait."""
        return [since for function, since in self._grown.items() if function in self._view.functions]

    async def _run(self) -> None:
        self._note(await self._logs.functions())
        with suppress(StoreError):
            self._note(await self._history.functions())
        while True:
            await self.round()
            await asyncio.sleep(self._every)

    def _forget(self) -> None:
        """Drops what is known of functions that were deleted."""
        made = {name: made_at(function) for name, function in self._view.functions.items()}
        for name, when in [key for key in self._shipped if made.get(key[0]) != key[1]]:
            del self._shipped[name, when]

    def _note(self, functions: Iterable[str]) -> None:
        now = monotonic()
        for function in functions:
            self._grown.setdefault(function, now)
        if self._stats.logs_wait_since is None:
            self._stats.logs_wait_since = min(self._known(), default=None)

    async def _ship(self, function: Function) -> None:
        """Ships what is not on the shelf of a function, and takes away what is no longer kept here."""
        key = function.name, made_at(function)
        if key not in self._shipped:
            found = await self._shelf.list(*key, self._node, self._lane)
            self._shipped[key] = {shelved.number: shelved.size for shelved in found}
        shipped = self._shipped[key]
        pieces = await self._logs.in_thread(self._logs.files.pieces, function.name)
        for number, size in pieces.items():
            if shipped.get(number) != size:
                data = await self._logs.in_thread(self._logs.files.piece, function.name, number)
                await self._put(Shelved(*key, self._node, self._lane, number), data)
                shipped[number] = len(data)
        if pieces:
            old = [number for number in shipped if INVOCATIONS < number < min(pieces)]
            await self._shelf.delete([Shelved(*key, self._node, self._lane, number) for number in old])
            for number in old:
                del shipped[number]
        if invocations := await self._history.document(function.name):
            await self._put(Shelved(*key, self._node, self._lane, INVOCATIONS), invocations)

    async def _put(self, shelved: Shelved, data: bytes) -> None:
        await self._shelf.put(shelved, data)
        await asyncio.sleep(len(data) / RATE)

    def _dropped(self, function: str, number: int, size: int) -> None:
        """A piece goes for want of room, in the thread of the log files."""
        known = self._view.functions.get(function)
        if known is not None:
            shipped = self._shipped.get((function, made_at(known)), {})
            self._stats.logs_dropped += max(0, size - shipped.get(number, 0))

    def _complain(self, error: Exception) -> None:
        if self._reached:
            log.warning("logs_not_shipped", error=str(error))
        self._reached = False
