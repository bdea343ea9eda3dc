"""What a queue is: messages that wait for somebody to take them, are held by one at a time, and come again if not done.

Delivery is *at least once*. Whoever takes a message holds it for a while, its visibility; during that time nobody else
gets it. Then it comes again, unless it has been acknowledged. What has been delivered ``max_deliveries`` times and not
been acknowledged is a dead letter: it waits for a person. Messages that have waited longer come first, more or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_DELIVERIES = 5
DEDUPE_SECONDS = 3600.0
"""How long a queue remembers what was put under a name."""
MAX_VISIBILITY = 12 * 3600.0
"""The longest visibility, in seconds."""


class QueueError(Exception):
    """The queue is out of reach. What was asked for may have happened or not; it may be asked for again."""


class QueueFull(Exception):
    """There are as many messages in the queue as may be; nothing was added."""


class DeliveryLost(QueueError):
    """The message is not held by this delivery any more: its visibility has passed, and it came again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that somebody holds.

    Attributes:
        id: of the message, the same in each delivery.
        message: what was put.
        attempt: which delivery of the message it is, from 1.
        handle: what the queue itself knows this delivery by.
    """

    id: str
    message: bytes
    attempt: int
    handle: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was delivered as often as may be and never acknowledged.

    Attributes:
        id: of the message.
        message: what was put.
        attempts: how often it was delivered.
        died: when it was given up, in seconds since the epoch.
    """

    id: str
    message: bytes
    attempts: int
    died: float


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages there are.

    Attributes:
        ready: may be taken now.
        delayed: may be taken later.
        taken: were taken and not acknowledged; also when their visibility has passed, until somebody takes them again.
        dead: are dead letters.
    """

    ready: int = 0
    delayed: int = 0
    taken: int = 0
    dead: int = 0


class Queue(Protocol):
    """A queue. Every method may raise `QueueError`, within some seconds; times are seconds."""

    async def put(
        self, message: bytes, *, delay: float = 0.0, dedupe: str | None = None, most: int | None = None
    ) -> str:
        """Adds a message; once this returns it is not lost.

        Args:
            message: any bytes.
            delay: for how long nobody gets it.
            dedupe: a name of the message. Put under the same name again within `DEDUPE_SECONDS`, it is not added.
            most: how many messages there may be with it, dead letters aside; None: any number.

        Returns:
            The id of the message, or of the one that was put under the name before.

        Raises:
            QueueFull: there are ``most`` already.
        """

    async def take(self, n: int, visibility: float) -> Sequence[Delivery]:
        """Returns up to ``n`` messages, held for ``visibility`` (at most `MAX_VISIBILITY`); does not wait for any."""

    async def ack(self, delivery: Delivery) -> None:
        """Forgets a message that is done; harmless when it is forgotten already, or was given back by this delivery.

        Raises:
            DeliveryLost: somebody else has taken it since.
        """

    async def nack(self, delivery: Delivery, delay: float = 0.0, *, tried: bool = True) -> None:
        """Gives a message back, to be taken again after ``delay``; after its last delivery it becomes a dead letter.

        Harmless when that, or `ack`, was done already. What was not ``tried`` is as if it had not been delivered.

        Raises:
            DeliveryLost: somebody else has taken it since.
        """

    async def extend(self, delivery: Delivery, visibility: float) -> None:
        """Holds a message for ``visibility`` from now on.

        Raises:
            DeliveryLost: this delivery does not hold it any more.
        """

    async def depth(self) -> Depth:
        """Counts the messages."""

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Returns dead letters, the oldest first."""

    async def is_dead(self, message_id: str) -> bool:
        """Whether a message is a dead letter."""

    async def requeue(self, message_id: str) -> bool:
        """Lets a dead letter be taken as if it were new; returns False where there is no such one."""

    async def drop(self, message_id: str) -> bool:
        """Deletes a dead letter; returns False where there is no such one."""

    async def close(self) -> None:
        """Lets go of files and connections. What is held comes again after its visibility."""


def checked_visibility(visibility: float) -> float:
    """Returns it. Raises ValueError where nobody may hold a message for so long."""
    if not 0 < visibility <= MAX_VISIBILITY:
        raise ValueError(
            f"a message is held for more than 0 and at most {MAX_VISIBILITY:g} s, not {visibility:g}"
        )
    return visibility


def full(most: int) -> QueueFull:
    """Returns the error that says so."""
    return QueueFull(f"{most} messages wait in the queue already")


def lost(delivery: Delivery) -> DeliveryLost:
    """Returns the error that says so."""
    return DeliveryLost(f"the message {delivery.id} is not held by its delivery {delivery.attempt} any more")
