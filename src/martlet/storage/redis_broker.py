"""The broker of a cluster: Redis.

{martlet:queue:NAME}:…    the queue of that name (see `redis_queue`)
martlet:queues            the names of all queues that anything was ever put into, and that were not forgotten
martlet:kept:KEY          what is kept, which Redis itself forgets in time
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from martlet.storage.queue import MAX_DELIVERIES, QueueError
from martlet.storage.redis_queue import PATIENCE, RedisQueue, connections

NAMES = "martlet:queues"
KEPT = "martlet:kept:"


class RedisBroker:
    """A `Broker` in Redis 7 or newer. It connects when it is first asked, and belongs to one event loop.

    Args:
        url: as that of a `RedisQueue`.
        max_deliveries: how often a message is delivered before it is a dead letter.
    """

    def __init__(self, url: str, max_deliveries: int = MAX_DELIVERIES) -> None:
        self._redis = connections(url)
        self._max_deliveries = max_deliveries

    def queue(self, name: str) -> RedisQueue:
        """See `Broker.queue`."""
        return _NamedQueue(self, self._redis, name, self._max_deliveries)

    async def names(self) -> Sequence[str]:
        """See `Broker.names`."""
        return sorted(name.decode() for name in await self.ask(self._redis.smembers(NAMES)))

    async def forget(self, name: str) -> None:
        """See `Broker.forget`."""
        await self.ask(self._redis.srem(NAMES, name))
        await RedisQueue("", name, redis=self._redis).clear()

    async def keep(self, key: str, content: bytes, seconds: float, *, replace: bool = True) -> None:
        """See `Broker.keep`."""
        milliseconds = max(1, round(seconds * 1000))
        await self.ask(self._redis.set(KEPT + key, content, px=milliseconds, nx=not replace))

    async def kept(self, key: str) -> bytes | None:
        """See `Broker.kept`."""
        content: bytes | None = await self.ask(self._redis.get(KEPT + key))
        return content

    async def close(self) -> None:
        """See `Broker.close`."""
        await self._redis.aclose()

    async def ask(self, command: Any) -> Any:
        """Returns what Redis answers to a command. Raises `QueueError`."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await command
        except (RedisError, OSError) as error:
            raise QueueError(f"the queue in Redis: {str(error) or 'no answer'}") from error


class _NamedQueue(RedisQueue):
    """A queue whose name is known to all before there is anything in it."""

    def __init__(self, broker: RedisBroker, redis: Redis, name: str, max_deliveries: int) -> None:
        super().__init__("", name, max_deliveries, redis=redis)
        self._broker = broker
        self._name = name

    async def put(
        self, message: bytes, *, delay: float = 0.0, dedupe: str | None = None, most: int | None = None
    ) -> str:
        """See `Queue.put`."""
        await self._broker.ask(self._redis.sadd(NAMES, self._name))
        return await super().put(message, delay=delay, dedupe=dedupe, most=most)
