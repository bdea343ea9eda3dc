"""What is done once for all controls that share a store: by the one that leads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from martlet.control.declared import Declared
from martlet.control.deployments import Deployments
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

EVERY = 10.0
"""Seconds between two looks at what other nodes have left."""
SWEEP_EVERY = 60
"""Looks between two sweeps of the blobs: other controls leave garbage too."""


class Duties:
    """See the module.

    Args:
        leadership: says whether this control leads.
        store: shared by all.
        view: the store in memory.
        queue: the deploys that have not ended.
        garbage: removes what nothing needs.
        shelves: likewise, of the logs that machines have put aside.
        deployments: goes on with deploys.
        declared: the functions of the configuration file.
        uploads: the folder for what was sent with deploys of nodes that are gone; None: it cannot be had here.
        every: seconds between two looks.
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
        deployments: Deployments,
        declared: Declared,
        uploads: Path | None,
        every: float = EVERY,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._view = view
        self._queue = queue
        self._garbage = garbage
        self._shelves = shelves
        self._deployments = deployments
        self._declared = declared
        self._uploads = uploads
        self._every = every
        fenced = FencedStore(store, leadership.guard)
        self._registry = Registry(fenced)
        self._dividing = None if pace is None else Dividing(fenced, view, pace)

    async def lead(self) -> None:
        """Does it until it is cancelled."""
        await self._recover()
        self._declared.open()
        dividing = None if self._dividing is None else asyncio.ensure_future(self._dividing.run())
        try:
            looks = 0
            while True:
                await self._adopt()
                looks += 1
                if looks % SWEEP_EVERY == 0:
                    self._garbage.sweep_soon()
                    self._shelves.sweep_soon()
                await asyncio.sleep(self._every)
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

    async def _adopt(self) -> None:
        """Goes on with the deploys of nodes that are gone."""
        if self._uploads is None:
            return
        try:
            for each in await self._queue.waiting():
                if not self._queue.is_own(each) and each.node not in self._view.nodes:
                    log.info("deploy_adopted", build=each.build, function=each.function, of=each.node)
                    mine = self._queue.owned(each)
                    await self._registry.put_waiting(mine)
                    await self._deployments.resume([mine], self._uploads)
        except StoreError as error:
            log.warning("deploys_not_adopted", error=str(error))
