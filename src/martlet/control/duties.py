"""What is done once for all controls that share a store: by the one that leads."""

from __future__ import annotations

import asyncio

import structlog

from martlet.control.declared import Declared
from martlet.control.dividing import Dividing
from martlet.control.garbage import Garbage
from martlet.control.leadership import Leadership
from martlet.control.queue import Queue
from martlet.control.shelves import Shelves
from martlet.scheduling.trend import Pace
from martlet.storage.fenced import FencedStore
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import Store, StoreError

log = structlog.get_logger()

SWEEP_EVERY = 600.0
"""Seconds between two sweeps of the blobs: other machines leave garbage too."""


class Duties:
    """See the module.

    Args:
        leadership: says whether this control leads.
        store: shared by all.
        view: the store in memory.
        queue: the deploys that have not ended.
        garbage: removes what nothing needs.
        shelves: likewise, of the logs that machines have put aside.
        declared: the functions of the configuration file.
        pace: how quickly the instances on all nodes follow their calls; None: there is but one node.
    """

    def __init__(
        self,
        leadership: Leadership,
        store: Store,
        view: RegistryView,
        queue: Queue,
        garbage: Garbage,
        shelves: Shelves,
        declared: Declared,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._view = view
        self._queue = queue
        self._garbage = garbage
        self._shelves = shelves
        self._declared = declared
        fenced = FencedStore(store, leadership.guard)
        self._registry = Registry(fenced)
        self._dividing = None if pace is None else Dividing(fenced, view, pace)

    async def lead(self) -> None:
        """Does it until it is cancelled."""
        await self._recover()
        self._declared.open()
        dividing = None if self._dividing is None else asyncio.ensure_future(self._dividing.run())
        try:
            while True:
                await asyncio.sleep(SWEEP_EVERY)
                self._garbage.sweep_soon()
                self._shelves.sweep_soon()
        finally:
            if dividing is not None:
                dividing.cancel()
                await asyncio.gather(dividing, return_exceptions=True)
            await self._declared.close()

    async def _recover(self) -> None:
        """Removes what deploys have left that nobody goes on with."""
        try:
            deployed = {each.function for each in await self._queue.waiting()}
            await self._garbage.recover(self._registry, lambda name: name not in deployed)
        except StoreError as error:
            log.warning("garbage_not_removed", error=str(error))
