"""The queue of a cluster: a Redis stream with a consumer group, and beside it what waits and what is dead.

    stream     an entry with the id of each message that may be taken or is held (pending in the group)
    messages   id -> content             attempts   id -> deliveries so far
    holders    id -> handle of its last delivery
    delayed    ids, by when they may be taken       dead   ids, by when they died; milliseconds of Redis's clock
    name:…     the id of what was put under a name, for as long as that is remembered

All keys begin with ``{martlet:queue:NAME}:``, so that a Redis Cluster keeps them in one place, and each operation is
one script, so that it happens as a whole. A script is sent again when its answer does not come; each is written to be.

The group counts for how long an entry has been pending. An entry that is to be held for v of at most
`MAX_VISIBILITY` begins with a count of `MAX_VISIBILITY` - v, and XAUTOCLAIM hands out what has reached it. All
processes are one consumer of the group: a dead one leaves nothing behind.

Redis loses nothing that it has accepted when it is killed, with ``appendonly yes``; with ``appendfsync always`` not
in a power cut either, with ``everysec`` the last second then. Its ``maxmemory-policy`` must be ``noeviction``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from martlet.storage import redis_scripts
from martlet.storage.queue import (
    DEDUPE_SECONDS,
    MAX_DELIVERIES,
    MAX_VISIBILITY,
    DeadLetter,
    Delivery,
    Depth,
    QueueError,
    checked_visibility,
    full,
    lost,
)

PATIENCE = 12.0
RETRIES = 3
_KEYS = ("stream", "messages", "attempts", "holders", "delayed", "dead")


def connections(url: str, patience: float = PATIENCE) -> Redis:
    """Returns connections to Redis, which are made when they are needed; arguments as those of `RedisQueue`."""
    return Redis.from_url(
        url,
        socket_connect_timeout=patience / 6,
        socket_timeout=patience / 3,
        retry=Retry(ExponentialWithJitterBackoff(base=0.1, cap=1.0), RETRIES),
    )


class RedisQueue:
    """A `Queue` in Redis 7 or newer. It connects when it is first asked, and belongs to one event loop.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, ``rediss://…`` for TLS, or ``unix://path``.
        name: of the queue; any number of them may be in one Redis.
        max_deliveries: how often a message is delivered before it is a dead letter.
        patience: seconds after which what is asked for is given up; an answer is waited for a third of it, and then
            asked for again.
        redis: `connections` that others have too, in place of its own; whoever closes the queue closes them.
    """

    def __init__(
        self,
        url: str,
        name: str,
        max_deliveries: int = MAX_DELIVERIES,
        patience: float = PATIENCE,
        redis: Redis | None = None,
    ) -> None:
        self._redis = connections(url, patience) if redis is None else redis
        self._prefix = f"{{martlet:queue:{name}}}:"
        self._keys = [self._prefix + key for key in _KEYS]
        self._max_deliveries = max_deliveries
        self._patience = patience
        self._scripts = {name: self._redis.register_script(text) for name, text in redis_scripts.ALL.items()}
        self._cursor = b"0-0"
        self._closed = False

    async def put(
        self, message: bytes, *, delay: float = 0.0, dedupe: str | None = None, most: int | None = None
    ) -> str:
        """See `Queue.put`."""
        names = [] if dedupe is None else [f"{self._prefix}name:{dedupe}"]
        room = -1 if most is None else most
        given = [secrets.token_hex(16), message, _ms(delay), _ms(DEDUPE_SECONDS), room]
        message_id = await self._run("put", *given, names=names)
        if message_id is None:
            raise full(room)
        return str(message_id.decode())

    async def take(self, n: int, visibility: float) -> Sequence[Delivery]:
        """See `Queue.take`."""
        idle = _ms(MAX_VISIBILITY) - _ms(checked_visibility(visibility))
        self._cursor, rows = await self._run(
            "take", n, idle, _ms(MAX_VISIBILITY), self._max_deliveries, self._cursor
        )
        return [
            Delivery(key.decode(), content, attempt, handle.decode())
            for key, content, attempt, handle in rows
        ]

    async def ack(self, delivery: Delivery) -> None:
        """See `Queue.ack`."""
        if not await self._run("ack", delivery.id, delivery.handle):
            raise lost(delivery)

    async def nack(self, delivery: Delivery, delay: float = 0.0, *, tried: bool = True) -> None:
        """See `Queue.nack`."""
        dies = int(tried and delivery.attempt >= self._max_deliveries)
        if not await self._run("nack", delivery.id, delivery.handle, _ms(delay), dies, int(tried)):
            raise lost(delivery)

    async def extend(self, delivery: Delivery, visibility: float) -> None:
        """See `Queue.extend`."""
        idle = _ms(MAX_VISIBILITY) - _ms(checked_visibility(visibility))
        if not await self._run("extend", delivery.id, delivery.handle, idle):
            raise lost(delivery)

    async def depth(self) -> Depth:
        """See `Queue.depth`."""
        return Depth(*await self._run("depth"))

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Queue.dead_letters`."""
        rows = await self._run("dead_letters", limit)
        return [
            DeadLetter(key.decode(), content, int(attempts), int(died) / 1000)
            for key, content, attempts, died in rows
        ]

    async def is_dead(self, message_id: str) -> bool:
        """See `Queue.is_dead`."""
        return bool(await self._run("is_dead", message_id))

    async def requeue(self, message_id: str) -> bool:
        """See `Queue.requeue`."""
        return bool(await self._run("requeue", message_id))

    async def drop(self, message_id: str) -> bool:
        """See `Queue.drop`."""
        return bool(await self._run("drop", message_id))

    async def clear(self) -> None:
        """Forgets every message; what was put under a name is remembered all the same."""
        await self._run("clear")

    async def close(self) -> None:
        """See `Queue.close`."""
        self._closed = True
        await self._redis.aclose()

    async def _run(self, script: str, *args: Any, names: Sequence[str] = ()) -> Any:
        if self._closed:
            raise QueueError("the queue is closed")
        try:
            async with asyncio.timeout(self._patience):
                answer = self._scripts[script](keys=[*self._keys, *names], args=args)
                return await cast("Awaitable[Any]", answer)
        except (RedisError, OSError) as error:
            raise QueueError(f"the queue in Redis: {str(error) or 'no answer'}") from error


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
