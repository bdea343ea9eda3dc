"""Asynchronous invocations, as a broker has them: requests that wait in a queue for each function, and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from martlet.errors import Overloaded, Unavailable
from martlet.model import DeadInvocation, Invocation, InvocationState
from martlet.storage.broker import Broker
from martlet.storage.queue import DeadLetter, Queue, QueueError, QueueFull

RETRY_AFTER = 5.0
"""Seconds after which a function's full queue may have room again."""
WAITING_KEPT = 7 * 86_400.0
"""Seconds for which it is remembered of one that waits that it does."""


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody has asked a function.

    Attributes:
        function: its name.
        target: the function, or the revision or alias of it that was asked for: ``hello@live``.
        method: of the request.
        path: with the query, below the function's root.
        headers: the lines that the function gets, each with its line end.
        created: when the function was made: another of the same name is another function.
        accepted: when, in seconds since the epoch.
        body: all of it.
    """

    function: str
    target: str
    method: str
    path: str
    headers: bytes
    created: float
    accepted: float
    body: bytes

    def encode(self) -> bytes:
        """Returns it as a message."""
        head = {
            "target": self.target,
            "method": self.method,
            "path": self.path,
            "headers": self.headers.decode("latin-1"),
            "created": self.created,
            "accepted": self.accepted,
        }
        return orjson.dumps(head) + b"\n" + self.body

    @classmethod
    def decode(cls, message: bytes) -> Request:
        """Reads what `encode` wrote."""
        head, _, body = message.partition(b"\n")
        members: dict[str, Any] = orjson.loads(head)  # of a newer version perhaps some more
        return cls(
            function=members["target"].partition("@")[0],
            target=members["target"],
            method=members["method"],
            path=members["path"],
            headers=members["headers"].encode("latin-1"),
            created=members["created"],
            accepted=members["accepted"],
            body=body,
        )


class Invocations:
    """See the module.

    Args:
        broker: where they are; it stays the caller's to close.
        most: how many of a function may wait or run.
        kept: seconds for which an outcome is kept.
    """

    def __init__(self, broker: Broker, most: int, kept: float) -> None:
        self._broker = broker
        self._most = most
        self._kept = kept

    async def accept(self, request: Request, name: str | None = None) -> Invocation:
        """Puts a request into the queue of its function; once this returns it is not lost.

        Args:
            request: what is asked.
            name: what the caller calls it: asked under the same name again soon, it is the same invocation.

        Raises:
            Overloaded: too many wait already.
            Unavailable: the queue is out of reach.
        """
        try:
            queue = self._broker.queue(request.function)
            invocation_id = await queue.put(request.encode(), dedupe=name, most=self._most)
            invocation = Invocation(
                id=invocation_id,
                function=request.function,
                target=request.target,
                state=InvocationState.WAITING,
                accepted=request.accepted,
            )
            # It may have been run by now.
            await self._keep(invocation, replace=False)
            return await self.find(invocation_id) or invocation if name is not None else invocation
        except QueueFull as error:
            raise Overloaded(
                f"{self._most} asynchronous invocations of {request.function!r} wait already (system.async_queue)",
                retry_after=RETRY_AFTER,
            ) from error
        except QueueError as error:
            raise Unavailable("the queue of asynchronous invocations is out of reach") from error

    async def find(self, invocation_id: str) -> Invocation | None:
        """Returns an invocation, unless nobody knows of it any more. Raises `QueueError`."""
        document = await self._broker.kept(invocation_id)
        if document is None:
            return None
        found = Invocation.read(document)
        if found.state is InvocationState.WAITING and await self.queue(found.function).is_dead(found.id):
            return found.model_copy(
                update={"state": InvocationState.FAILED}
            )  # each lane that ran it has died
        return found

    async def note(self, invocation: Invocation) -> None:
        """Keeps how far an invocation is now. Raises `QueueError`."""
        await self._keep(invocation, replace=True)

    async def functions(self) -> Sequence[str]:
        """Returns the functions that invocations may wait for. Raises `QueueError`."""
        return await self._broker.names()

    def queue(self, function: str) -> Queue:
        """Returns the queue of a function's requests."""
        return self._broker.queue(function)

    async def forget(self, function: str) -> None:
        """Deletes all that waits for a function, and its dead letters. Raises `QueueError`."""
        await self._broker.forget(function)

    async def dead(self, function: str, limit: int) -> list[DeadInvocation]:
        """Returns the invocations that were given up, the oldest first. Raises `QueueError`."""
        return [_dead(letter) for letter in await self.queue(function).dead_letters(limit)]

    async def retry(self, function: str, invocation_id: str) -> bool:
        """Runs a dead letter as if it were new; returns False where there is no such one. Raises `QueueError`."""
        found = await self.find(invocation_id)
        if found is not None:
            # Before it can run again, or its outcome might be written over.
            await self.note(found.model_copy(update={"state": InvocationState.WAITING, "ended": None}))
        requeued = await self.queue(function).requeue(invocation_id)
        if found is not None and not requeued:
            await self.note(found)
        return requeued

    async def _keep(self, invocation: Invocation, *, replace: bool) -> None:
        document = invocation.model_dump_json().encode()
        seconds = WAITING_KEPT if invocation.state is InvocationState.WAITING else self._kept
        await self._broker.keep(invocation.id, document, seconds, replace=replace)


def _dead(letter: DeadLetter) -> DeadInvocation:
    request = Request.decode(letter.message)
    return DeadInvocation(
        id=letter.id,
        target=request.target,
        method=request.method,
        path=request.path,
        accepted=request.accepted,
        died=letter.died,
        attempts=letter.attempts,
        bytes=len(request.body),
    )
