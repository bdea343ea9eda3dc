"""What machines that do not answer have put aside of their logs and invocations (`system.log_store`)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

import structlog

from martlet.control.health import ASK_TIMEOUT
from martlet.model import InvocationView, LogLine
from martlet.storage.log_shelf import INVOCATIONS, LogShelf, ShelfError, Shelved, made_at
from martlet.storage.registry import RegistryView
from martlet.storage.store import Store, StoreError

log = structlog.get_logger()

NAME = "log_store"
"""What an answer calls it that lacks what is put aside."""

LaneName = tuple[str, str]
"""The id of a machine, and the name of a lane there."""


class Shelves:
    """See the module.

    Args:
        shelf: where it is put aside; None where nothing is.
        store: of the platform.
        view: the store in memory.
        bytes_per_function: kept of each function, of all machines together that are gone.
        may_sweep: whether what nobody needs is this control's to delete.
    """

    def __init__(
        self,
        shelf: LogShelf | None,
        store: Store,
        view: RegistryView,
        bytes_per_function: int,
        may_sweep: Callable[[], bool],
    ) -> None:
        self._shelf = shelf
        self._store = store
        self._view = view
        self._bytes_per_function = bytes_per_function
        self._may_sweep = may_sweep
        self._sweeps: set[asyncio.Task[None]] = set()
        if shelf is not None:
            view.on_change.append(self._changed)

    async def close(self) -> None:
        """Stops what goes on in the background."""
        for task in tuple(self._sweeps):
            task.cancel()
        await asyncio.gather(*self._sweeps, return_exceptions=True)

    async def logs(
        self, function: str, answered: Collection[LaneName], tail: int
    ) -> list[tuple[LaneName, list[LogLine]]]:
        """Returns the last lines of a function of each lane that has not answered, oldest first.

        Raises:
            ShelfError: they are out of reach.
        """
        pieces = defaultdict(list)
        for shelved in await self._of(function, answered):
            if shelved.number != INVOCATIONS:
                pieces[shelved.node, shelved.lane].append(shelved)
        read = await asyncio.gather(*(self._last_lines(each, tail) for each in pieces.values()))
        return list(zip(pieces, read, strict=True))

    async def invocations(self, function: str, answered: Collection[LaneName]) -> list[InvocationView]:
        """Returns the latest invocations of a function on lanes that have not answered.

        Raises:
            ShelfError: they are out of reach.
        """
        found = [each for each in await self._of(function, answered) if each.number == INVOCATIONS]
        documents = await asyncio.gather(*map(self._get, found))
        return [InvocationView.read(line) for document in documents for line in document.splitlines()]

    def sweep_soon(self, *name: str) -> None:
        """Deletes what is left of functions that are no more, of one name or of all, in the background."""
        if self._shelf is not None and self._may_sweep():
            task = asyncio.create_task(self._sweep(self._shelf, *name))
            self._sweeps.add(task)
            task.add_done_callback(self._sweeps.discard)

    async def _of(self, function: str, answered: Collection[LaneName]) -> list[Shelved]:
        known = self._view.functions.get(function)
        if self._shelf is None or known is None:
            return []
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                found = await self._shelf.list(function, made_at(known))
        except TimeoutError:
            raise ShelfError("it does not answer") from None
        return [shelved for shelved in found if (shelved.node, shelved.lane) not in answered]

    async def _last_lines(self, pieces: list[Shelved], tail: int) -> list[LogLine]:
        lines: list[LogLine] = []
        for piece in reversed(pieces):
            if len(lines) >= tail:
                break
            written = (await self._get(piece)).splitlines()
            lines[:0] = map(LogLine.read, written[-(tail - len(lines)) :])
        return lines

    async def _get(self, shelved: Shelved) -> bytes:
        assert self._shelf is not None
        return await self._shelf.get(shelved)

    def _changed(self, noun: str, name: str) -> None:
        if noun == "function" and name not in self._view.functions:
            self.sweep_soon(name)

    async def _sweep(self, shelf: LogShelf, *name: str) -> None:
        try:
            found = await shelf.list(*name)
            await self._view.catch_up(
                await self._store.revision()
            )  # so it knows all that something was put aside of
            unwanted = [*self._deleted(found), *self._beyond(found)]
            await shelf.delete(unwanted)
        except (ShelfError, StoreError) as error:
            log.warning("logs_not_swept", error=str(error))

    def _deleted(self, found: Iterable[Shelved]) -> list[Shelved]:
        """Returns what is of functions that are no more."""
        made = {name: made_at(function) for name, function in self._view.functions.items()}
        return [shelved for shelved in found if made.get(shelved.function) != shelved.made]

    def _beyond(self, found: Iterable[Shelved]) -> list[Shelved]:
        """Returns the oldest of machines that are gone, beyond what is kept of them."""
        kept: dict[str, int] = defaultdict(int)
        beyond = []
        for shelved in sorted(found, key=lambda each: each.written, reverse=True):
            if shelved.node not in self._view.nodes:
                kept[shelved.function] += shelved.size
                if kept[shelved.function] > self._bytes_per_function:
                    beyond.append(shelved)
        return beyond
