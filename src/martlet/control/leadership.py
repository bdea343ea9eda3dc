"""Which of the controls that share a store leads: it alone does what must be done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Protocol

import structlog

from martlet.storage.store import Guard, Lease, LeaseExpired, RevisionMismatch, Store, StoreError

log = structlog.get_logger()

KEY = "/leader"
LEASE_SECONDS = 10.0
"""How long a leader that is silent still leads."""
HEARTBEAT_SECONDS = 3.0
LOOK_SECONDS = 1.0
"""Seconds between two looks of the others whether somebody leads."""

Lead = Callable[[], Awaitable[None]]


class NotLeading(StoreError):
    """This control does not lead, or does not any more: it must not do what only the leader does."""


class Leadership(Protocol):
    """See the module."""

    @property
    def leads(self) -> bool:
        """Whether this control leads now. The answer is old as soon as it is given; `guard` is what holds."""

    @property
    def leader(self) -> str | None:
        """The id of the node whose control leads, as far as is known here."""

    def guard(self) -> Guard | None:
        """Returns what every write of the leader depends on; None: nothing. Raises `NotLeading`."""

    def open(self, lead: Lead) -> None:
        """Begins; ``lead`` is run whenever this control has become the leader, and cancelled when it leads no more."""

    async def close(self) -> None:
        """Stops leading, and lets another do it."""


class Alone:
    """The leadership of a control that shares its store with no other.

    Args:
        node: its id.
    """

    leads = True

    def __init__(self, node: str) -> None:
        self.leader: str | None = node
        self._work: asyncio.Task[None] | None = None

    def guard(self) -> Guard | None:
        """See `Leadership.guard`."""
        return None

    def open(self, lead: Lead) -> None:
        """See `Leadership.open`."""
        self._work = asyncio.ensure_future(lead())

    async def close(self) -> None:
        """See `Leadership.close`."""
        await _ended(self._work)


@dataclass(frozen=True, slots=True)
class _Term:
    """The time for which one leads: the lease, the revision that the key was written at, and the work."""

    lease: Lease
    revision: int
    work: asyncio.Task[None]


class Election:
    """The leadership among several: whoever writes the key first, under a lease, leads until that ends.

    The leader stops by its own clock before the lease has ended for the store. Where even that is too late, because it
    was paused between a look at the clock and a write, the guard of the write has another revision by then.

    Args:
        store: shared by all.
        node: the id of this one. What an earlier life of it has left is taken over at once.
        ttl: seconds that the others wait for a leader.
        heartbeat: seconds between two signs of life.
        look: seconds between two looks at who leads, and whether it should be this one.
        gives_way: whether another should lead, and there is one that can. Then this one leads only if, for as long as a
            leader may be silent, nobody else does.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        ttl: float = LEASE_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
        look: float = LOOK_SECONDS,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self.leader: str | None = None
        self._store = store
        self._node = node
        self._ttl = ttl
        self._heartbeat = heartbeat
        self._look = look
        self._gives_way = gives_way
        self._offered = False  # nobody has taken the lead since this one has let go of it
        self._vacant_since = _now()
        self._until = self._renew_at = 0.0
        self._term: _Term | None = None
        self._lead: Lead = _nothing
        self._standing: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        """See `Leadership.leads`."""
        return self._term is not None and _now() < self._until

    def guard(self) -> Guard:
        """See `Leadership.guard`."""
        if self._term is None or not self.leads:
            raise NotLeading("this control does not lead any more")
        return Guard(KEY, self._term.revision)

    def open(self, lead: Lead) -> None:
        """See `Leadership.open`."""
        self._lead = lead
        self._standing = asyncio.create_task(self._stand())

    async def close(self) -> None:
        """See `Leadership.close`."""
        await _ended(self._standing)
        await self._let_go("it stops")

    async def _stand(self) -> None:
        while True:
            try:
                await (self._campaign() if self._term is None else self._go_on())
            except LeaseExpired:
                await self._resign("its lease has run out")
                continue
            except StoreError as error:
                log.warning("leader_not_known", error=str(error))
                if self._term is not None and not self.leads:
                    await self._resign("it could not renew its lease")
            await asyncio.sleep(self._look)

    async def _campaign(self) -> None:
        entry = await self._store.get(KEY)
        self.leader = None if entry is None else entry.value.decode()
        asked = _now()
        if entry is not None and self.leader != self._node:
            self._offered, self._vacant_since = False, asked
            return
        if self._gives_way() and asked - self._vacant_since < self._ttl:
            return
        lease = await self._store.lease(self._ttl)
        try:
            revision = await self._store.put(
                KEY, self._node.encode(), expect_revision=entry.revision if entry else 0, lease=lease
            )
        except RevisionMismatch:
            await lease.revoke()
            return
        self.leader, self._until, self._renew_at = self._node, asked + self._ttl, asked + self._heartbeat
        self._term = _Term(lease, revision, asyncio.ensure_future(self._lead()))
        log.info("leading", term=revision)

    async def _go_on(self) -> None:
        assert self._term is not None
        asked, gives_way = _now(), self._gives_way()
        if gives_way and not self._offered:
            self._offered, self._vacant_since = True, asked
            await self._let_go("another is to lead")
            return
        self._offered = self._offered and gives_way
        if asked < self._renew_at:
            return
        await self._term.lease.keep_alive()
        self._until, self._renew_at = asked + self._ttl, asked + self._heartbeat

    async def _let_go(self, why: str) -> None:
        """Stops leading, and lets another do it at once."""
        term = await self._resign(why)
        if term is not None:
            with suppress(StoreError):  # then the others wait for the lease to end
                await term.lease.revoke()

    async def _resign(self, why: str) -> _Term | None:
        term, self._term = self._term, None
        if term is not None:
            log.warning("not_leading", term=term.revision, why=why)
            self.leader = None
            await _ended(term.work)
        return term


def _now() -> float:
    """Returns the time by the clock that goes on while the machine sleeps."""
    return clock_gettime(CLOCK_BOOTTIME)


async def _nothing() -> None:
    """The work of a leader that is not open."""


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
