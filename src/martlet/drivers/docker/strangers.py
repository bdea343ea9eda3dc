"""Containers that are nobody's any more: what an earlier life left, or an engine that did not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

import structlog

from martlet.drivers.docker import monitors
from martlet.drivers.docker.engine import Engine, EngineError
from martlet.drivers.docker.labels import CELL, Labels
from martlet.drivers.docker.service import Service
from martlet.drivers.driver import DriverError

log = structlog.get_logger()
_RETRY_SECONDS = 1.0


class Strangers:
    """Those of one lane.

    Args:
        service: the way to the engine.
        labels: of the lane.
        cells: returns the ids of the cells that the lane has.
    """

    def __init__(self, service: Service, labels: Labels, cells: Callable[[], Collection[str]]) -> None:
        self._service = service
        self._labels = labels
        self._cells = cells
        self._trying: asyncio.Task[None] | None = None

    async def remove(self, container: str, *, ran: bool) -> None:
        """Removes a container, or has it done as soon as the engine answers.

        Args:
            container: its id or name.
            ran: whether the engine has said that it runs; else it may have forgotten that it was to.
        """
        try:
            engine = await self._service.reach()
            await engine.remove(container)
            if not ran:
                await self._end_forgotten(engine)
        except EngineError as error:
            log.warning("container_not_removed", container=container, error=str(error))
            self._try_again()

    async def sweep(self) -> None:
        """Removes all of them, or has it done as soon as the engine answers."""
        try:
            await self._remove_all()
        except DriverError as error:
            log.warning("engine_not_swept", error=str(error))
            self._try_again()

    async def close(self) -> None:
        """Tries for the last time where something is left."""
        if self._trying is not None and not self._trying.done():
            self._trying.cancel()
            with suppress(DriverError):
                await self._remove_all()

    def _try_again(self) -> None:
        if self._trying is None or self._trying.done():
            self._trying = asyncio.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        """Tries until it has succeeded twice: what the engine was asked for before it may have done after the first."""
        left = 2
        while left:
            await asyncio.sleep(_RETRY_SECONDS)
            with suppress(DriverError):
                await self._remove_all()
                left -= 1

    async def _remove_all(self) -> None:
        engine = await self._service.reach()
        found = await engine.labelled(self._labels.of_lane)
        strangers = [
            container for container, labels in found.items() if labels.get(CELL) not in self._cells()
        ]
        await asyncio.gather(*(engine.remove(container) for container in strangers))
        await self._end_forgotten(engine)

    async def _end_forgotten(self, engine: Engine) -> None:
        await monitors.end_forgotten(engine, self._labels.of_lane, self._labels.name(""))
