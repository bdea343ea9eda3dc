"""Keeps this machine among the nodes that the store knows, while it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from martlet.model import Node
from martlet.storage.registry import Registry
from martlet.storage.store import Lease, LeaseExpired, StoreError

log = structlog.get_logger()

LEASE_SECONDS = 10.0
"""How long a node that is silent is still known."""
HEARTBEAT_SECONDS = 3.0
ANNOUNCE_SECONDS = 3.0


class Membership:
    """See the module.

    Args:
        registry: where the nodes are.
        describe: what this one is now. It is written when it has changed.
        ttl: seconds that the others wait for it.
        heartbeat: seconds between two signs of life.
    """

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[], Awaitable[Node]],
        ttl: float = LEASE_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._registry = registry
        self._describe = describe
        self._ttl = ttl
        self._heartbeat = heartbeat
        self._lease: Lease | None = None
        self._written: Node | None = None
        self._beating = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Joins, and joins again whenever the store has forgotten it."""
        self._keeping = asyncio.create_task(self._keep())

    async def announce(self) -> None:
        """Tells the others at once what this one is now. Raises `StoreError` or TimeoutError if they cannot be told."""
        async with asyncio.timeout(ANNOUNCE_SECONDS):
            await self._beat()

    async def close(self) -> None:
        """Leaves."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._lease is not None:
            with suppress(StoreError):  # then it is forgotten a little later
                await self._lease.revoke()

    async def _keep(self) -> None:
        while True:
            try:
                await self._beat()
            except LeaseExpired:
                log.warning("node_was_forgotten")
                self._lease = None
                continue
            except StoreError as error:
                log.warning("node_not_registered", error=str(error))
            await asyncio.sleep(self._heartbeat)

    async def _beat(self) -> None:
        async with self._beating:
            if self._lease is None:
                self._lease = await self._registry.join(self._ttl)
                self._written = None
            else:
                await self._lease.keep_alive()
            node = await self._describe()
            if node != self._written:
                await self._registry.put_node(node, self._lease)
                self._written = node
