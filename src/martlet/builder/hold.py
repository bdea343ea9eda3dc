"""What a machine has of a build: the right to write what comes of it, until somebody else has taken it up."""

from __future__ import annotations

from contextlib import suppress

from martlet.errors import Conflict, NotFound
from martlet.model import Waiting
from martlet.storage.registry import Registry


class Hold:
    """See the module. It lasts while the deploy in the queue is as this machine wrote it.

    Args:
        registry: where the queue is.
        waiting: the deploy, as this machine wrote it.
        revision: the store revision that it was written at.

    Attributes:
        build: the id of the build.
        registry: by which to write what the build does: `GuardLost` where somebody else has it.
    """

    def __init__(self, registry: Registry, waiting: Waiting, revision: int) -> None:
        self._queue = registry
        self._waiting = waiting
        self._revision = revision
        self.build = waiting.build
        self.registry = registry.holding(waiting.build, lambda: self._revision)

    def heed(self, waiting: Waiting, revision: int) -> bool:
        """Whether it still is this machine's, as the queue has it now. Somebody may have cancelled it meanwhile."""
        if waiting.node != self._waiting.node or waiting.attempts != self._waiting.attempts:
            return False
        self._waiting, self._revision = waiting, revision
        return True

    async def is_cancelled(self) -> bool:
        """Looks whether it was lost only because somebody cancelled it. Raises `StoreError`."""
        try:
            waiting, revision = await self._queue.read_waiting(self.build)
        except NotFound:
            return False
        return self.heed(waiting, revision) and waiting.cancelled

    async def drop(self) -> bool:
        """Takes a deploy that has ended from the queue; says whether it was this machine's. Raises `StoreError`."""
        while True:
            try:
                await self._queue.delete_waiting(self.build, expect_revision=self._revision)
                return True
            except Conflict:
                if not await self.is_cancelled():
                    return False

    async def stop(self) -> None:
        """Says that the attempt ends because this machine stops, and not because of it. Raises `StoreError`."""
        stopped = self._waiting.model_copy(update={"stops": self._waiting.stops + 1})
        with suppress(Conflict):  # then it is somebody else's, or has ended
            await self._queue.put_waiting(stopped, expect_revision=self._revision)

    async def release(self, runtime: str) -> None:
        """Leaves it to a machine that can build this runtime. Raises `StoreError`."""
        left = self._waiting.model_copy(
            update={"node": "", "runtime": runtime, "attempts": self._waiting.attempts - 1}
        )
        with suppress(Conflict):  # then somebody has it already
            await self._queue.put_waiting(left, expect_revision=self._revision)
