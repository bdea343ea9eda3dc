"""What a broker is: the queues of a platform, by name, and what came of their messages, kept for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from martlet.storage.queue import Queue


class Broker(Protocol):
    """See the module. Every method that waits may raise `QueueError`, within some seconds; times are seconds."""

    def queue(self, name: str) -> Queue:
        """Returns a queue, which need not be there yet. It is the broker's to close."""

    async def names(self) -> Sequence[str]:
        """Returns the queues that have messages, dead letters too; some may have none any more."""

    async def forget(self, name: str) -> None:
        """Deletes a queue with all its messages."""

    async def keep(self, key: str, content: bytes, seconds: float, *, replace: bool = True) -> None:
        """Keeps what `kept` returns, for so long.

        Args:
            key: what it is asked for by.
            content: any bytes.
            seconds: for how long.
            replace: whether it takes the place of what is kept under the key.
        """

    async def kept(self, key: str) -> bytes | None:
        """Returns what is kept under a key, or None."""

    async def close(self) -> None:
        """Lets go of files and connections, those of the queues too."""
