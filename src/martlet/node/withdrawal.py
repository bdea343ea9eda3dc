"""Whether this machine gives its work to others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from martlet.storage.registry import RegistryView


class Withdrawal:
    """See the module. A machine that is drained serves on, and holds nothing; one that stops will be gone soon.

    Args:
        view: where drains are known.
        own: the id of this machine.

    Attributes:
        on_stopping: called once when it is being stopped.
    """

    def __init__(self, view: RegistryView, own: str) -> None:
        self._drains = view.drains
        self._own = own
        self._stopped = asyncio.Event()
        self.on_stopping: list[Callable[[], None]] = []

    @property
    def stopping(self) -> bool:
        """Whether it is being stopped."""
        return self._stopped.is_set()

    @property
    def begun(self) -> bool:
        """Whether others get what comes, where they can."""
        return self.stopping or self.drained

    @property
    def drained(self) -> bool:
        """Whether somebody wants it to hold nothing."""
        return self._own in self._drains

    def stop(self) -> None:
        """It is being stopped: whoever sends requests here should send them elsewhere."""
        if not self.stopping:
            self._stopped.set()
            for callback in self.on_stopping:
                callback()

    async def stopped(self) -> None:
        """Returns once it is being stopped."""
        await self._stopped.wait()
