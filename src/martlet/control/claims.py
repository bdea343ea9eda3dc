"""Takes deploys from the queue that all machines share, for this one to build: those that nobody has, and those of
machines that are gone.

Who writes a deploy in the queue as its own has it: two that try at once see the same store revision, and the second
write is refused. It is theirs while their node is on the list, which ends with their lease. From then on another may
write it, and what the first still writes is refused by its `Hold`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from martlet.builder.builds import Builds
from martlet.control.builders import Builders
from martlet.control.queue import Queue
from martlet.model import Waiting
from martlet.storage.blobs import BlobError
from martlet.storage.registry import RegistryView
from martlet.storage.store import StoreError

log = structlog.get_logger()

EVERY = 0.5
"""Seconds between two looks at the queue."""


class Claims:
    """See the module.

    Args:
        queue: the deploys that have not ended.
        view: where the nodes are known.
        builds: those under way here.
        builders: which machines can build what.
        take_up: takes a deploy up, as it is in the queue and was written; another may be quicker.
        own: the id of this machine.
    """

    def __init__(
        self,
        queue: Queue,
        view: RegistryView,
        builds: Builds,
        builders: Builders,
        take_up: Callable[[Waiting, int], Awaitable[None]],
        own: str,
    ) -> None:
        self._queue = queue
        self._view = view
        self._builds = builds
        self._builders = builders
        self._take_up = take_up
        self._own = own
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begins to look at the queue."""
        self._looking = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Takes nothing any more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            try:
                await self.look()
            except (StoreError, BlobError) as error:
                log.warning("queue_not_read", error=str(error))
            except Exception:
                log.exception("queue_not_read")
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Heeds what others have made of this machine's builds, then takes what it can. Raises `StoreError`."""
        before = set(
            self._builds.held
        )  # what begins after the queue was read is not lost because it is not there
        queue = await self._queue.written()
        self._heed(queue, before)
        if not self._takes():
            return
        others: set[str] = set()  # functions that an older deploy of another machine is to have changed first
        for waiting, written in queue:
            if waiting.node == self._own:
                continue
            if not self._is_free(waiting) or waiting.function in others or not self._can(waiting):
                others.add(waiting.function)
            elif self._builds.has_room or waiting.cancelled:
                await self._take_up(waiting, written)

    def _heed(self, queue: list[tuple[Waiting, int]], held: set[str]) -> None:
        found = {waiting.build: (waiting, written) for waiting, written in queue}
        for build, hold in self._builds.held.items():
            if build not in held:
                continue
            if build not in found or not hold.heed(*found[build]):
                self._builds.lose(build)
            elif found[build][0].cancelled:
                self._builds.stop(build)

    def _takes(self) -> bool:
        """Whether this machine takes builds of others now: one that withdraws leaves them to those that stay."""
        own = self._view.nodes.get(self._own)
        if own is None or own.stopping:
            return False
        staying = [node for node in self._builders.others() if node.id not in self._view.withdrawing]
        return self._own not in self._view.drains or not staying

    def _is_free(self, waiting: Waiting) -> bool:
        return not waiting.node or waiting.node not in self._view.nodes

    def _can(self, waiting: Waiting) -> bool:
        return waiting.cancelled or not waiting.runtime or self._builders.can_build_here(waiting.runtime)
