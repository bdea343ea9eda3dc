"""The queue in memory: for tests and for what may be lost with its process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from martlet.storage.queue import (
    DEDUPE_SECONDS,
    MAX_DELIVERIES,
    DeadLetter,
    Delivery,
    Depth,
    QueueError,
    checked_visibility,
    full,
    lost,
)


@dataclass(slots=True)
class _Message:
    content: bytes
    due: float
    attempts: int = 0
    holder: str = ""
    taken: bool = False


class MemoryQueue:
    """A `Queue` that is a dict. It belongs to one event loop."""

    def __init__(self, max_deliveries: int = MAX_DELIVERIES) -> None:
        self._max_deliveries = max_deliveries
        self._messages: dict[str, _Message] = {}
        self._dead: dict[str, DeadLetter] = {}
        self._names: dict[str, tuple[str, float]] = {}
        self._closed = False

    async def put(
        self, message: bytes, *, delay: float = 0.0, dedupe: str | None = None, most: int | None = None
    ) -> str:
        """See `Queue.put`."""
        now = self._now()
        self._names = {name: each for name, each in self._names.items() if each[1] > now}
        if dedupe in self._names:
            return self._names[dedupe][0]
        if most is not None and len(self._messages) >= most:
            raise full(most)
        message_id = secrets.token_hex(16)
        self._messages[message_id] = _Message(message, now + delay)
        if dedupe is not None:
            self._names[dedupe] = message_id, now + DEDUPE_SECONDS
        return message_id

    async def take(self, n: int, visibility: float) -> Sequence[Delivery]:
        """See `Queue.take`."""
        checked_visibility(visibility)
        now = self._now()
        due = sorted((message.due, key) for key, message in self._messages.items() if message.due <= now)
        deliveries: list[Delivery] = []
        for _, key in due:
            message = self._messages[key]
            if message.attempts >= self._max_deliveries:
                self._give_up(key)
            elif len(deliveries) < n:
                message.attempts, message.due = message.attempts + 1, now + visibility
                message.holder, message.taken = secrets.token_hex(8), True
                deliveries.append(Delivery(key, message.content, message.attempts, message.holder))
        return deliveries

    async def ack(self, delivery: Delivery) -> None:
        """See `Queue.ack`."""
        if self._held(delivery) is not None:
            del self._messages[delivery.id]

    async def nack(self, delivery: Delivery, delay: float = 0.0, *, tried: bool = True) -> None:
        """See `Queue.nack`."""
        message = self._held(delivery)
        if message is None:
            return
        message.taken, message.due = False, self._now() + delay
        if not tried:
            message.attempts -= 1
        elif message.attempts >= self._max_deliveries:
            self._give_up(delivery.id)

    async def extend(self, delivery: Delivery, visibility: float) -> None:
        """See `Queue.extend`."""
        checked_visibility(visibility)
        message = self._held(delivery)
        if message is None:
            raise lost(delivery)
        message.due = self._now() + visibility

    async def depth(self) -> Depth:
        """See `Queue.depth`."""
        now, messages = self._now(), self._messages.values()
        waiting = [message.due <= now for message in messages if not message.taken]
        return Depth(sum(waiting), len(waiting) - sum(waiting), len(messages) - len(waiting), len(self._dead))

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Queue.dead_letters`."""
        self._now()
        return list(self._dead.values())[:limit]

    async def is_dead(self, message_id: str) -> bool:
        """See `Queue.is_dead`."""
        self._now()
        return message_id in self._dead

    async def requeue(self, message_id: str) -> bool:
        """See `Queue.requeue`."""
        now = self._now()
        dead = self._dead.pop(message_id, None)
        if dead is not None:
            self._messages[message_id] = _Message(dead.message, now)
        return dead is not None

    async def drop(self, message_id: str) -> bool:
        """See `Queue.drop`."""
        self._now()
        return self._dead.pop(message_id, None) is not None

    async def close(self) -> None:
        """See `Queue.close`."""
        self._closed = True

    def clear(self) -> None:
        """Forgets every message."""
        self._messages, self._dead, self._names = {}, {}, {}

    def _held(self, delivery: Delivery) -> _Message | None:
        """Returns the message of a delivery, or None where that has ended. Raises `DeliveryLost`."""
        self._now()
        message = self._messages.get(delivery.id)
        if message is not None and message.holder != delivery.handle:
            raise lost(delivery)
        return message if message is not None and message.taken else None

    def _give_up(self, message_id: str) -> None:
        message = self._messages.pop(message_id)
        self._dead[message_id] = DeadLetter(message_id, message.content, message.attempts, time.time())

    def _now(self) -> float:
        if self._closed:
            raise QueueError("the queue is closed")
        return time.monotonic()
