"""The broker in memory: for tests and for what may be lost with its process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from martlet.storage.memory_queue import MemoryQueue
from martlet.storage.queue import MAX_DELIVERIES, Depth, QueueError


class MemoryBroker:
    """A `Broker` of dicts. It belongs to one event loop."""

    def __init__(self, max_deliveries: int = MAX_DELIVERIES) -> None:
        self._max_deliveries = max_deliveries
        self._queues: dict[str, MemoryQueue] = {}
        self._kept: dict[str, tuple[bytes, float]] = {}
        self._closed = False

    def queue(self, name: str) -> MemoryQueue:
        """See `Broker.queue`."""
        return self._queues.setdefault(name, MemoryQueue(self._max_deliveries))

    async def names(self) -> Sequence[str]:
        """See `Broker.names`."""
        self._now()
        return [name for name, queue in self._queues.items() if await queue.depth() != Depth()]

    async def forget(self, name: str) -> None:
        """See `Broker.forget`."""
        self._now()
        if name in self._queues:
            self._queues[name].clear()

    async def keep(self, key: str, content: bytes, seconds: float, *, replace: bool = True) -> None:
        """See `Broker.keep`."""
        now = self._now()
        self._kept = {name: each for name, each in self._kept.items() if each[1] > now}
        if replace or key not in self._kept:
            self._kept[key] = content, now + seconds

    async def kept(self, key: str) -> bytes | None:
        """See `Broker.kept`."""
        now = self._now()
        content, until = self._kept.get(key, (None, 0.0))
        return content if until > now else None

    async def close(self) -> None:
        """See `Broker.close`."""
        self._closed = True
        for queue in self._queues.values():
            await queue.close()

    def _now(self) -> float:
        if self._closed:
            raise QueueError("the broker is closed")
        return time.monotonic()
