"""What a lane looks after once a second: idle instances, minimums, ready cells, and the end of replaced revisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from martlet.errors import FunctionLoadFailed, NoCapacity
from martlet.model import Revision, ScalingAction
from martlet.node.habit import Habit, windows_of
from martlet.node.memory import available_share
from martlet.node.pool import Pool
from martlet.scheduling.keepalive import LINGER, Windows, instances_to_prewarm
from martlet.scheduling.placement import Placement, ranking, share_of
from martlet.storage.registry import RegistryView

if TYPE_CHECKING:
    from martlet.node.node import Node

log = structlog.get_logger()

EVERY = 1.0
AT_ONCE = 32
"""Pools that are looked after before requests have their turn."""
EXPECTED = "the calls of all machines lately will need it"
SAVE_EVERY = 60.0
"""Seconds between two times that what was learned of functions is written down."""
CANDIDATE_GRACE = 60.0
"""Seconds a revision that nothing points at keeps its pool: a deploy loads it before it points at it."""
REPLACED_TTL = 5.0
"""Seconds an idle instance is kept of a revision that nothing points at any more, but that is still asked for."""


class Housekeeping:
    """See the module."""

    def __init__(self, node: Node, view: RegistryView) -> None:
        self._node = node
        self._view = view
        self._retired: dict[Pool, float] = {}
        self._saved = monotonic()

    async def run(self) -> None:
        """Looks after the node until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            for _ in self._look_after(monotonic()):
                await asyncio.sleep(0)  # requests come between
            self._node.keep_cells()
            await self._node.stocks.tidy()

    def tend(self, now: float) -> None:
        """Looks after the instances once; ``now`` is `monotonic`."""
        for _ in self._look_after(now):
            pass

    def _look_after(self, now: float) -> Iterator[None]:
        """Does so in pieces: yields after each."""
        drained = self._node.withdrawal.drained
        self._node.allowance.changed()
        self._node.allowance.vacate()
        for number, pool in enumerate(tuple(self._node.pools.values()), 1):
            if self._node.pools.get(pool.revision.id) is not pool:
                continue  # it was dropped meanwhile
            pool.look(now)
            if drained:
                pool.expire(now, 0.0, 0, "the machine is drained")
            self._expire(pool, now)
            if number % AT_ONCE == 0:
                yield
        for template in tuple(self._node.templates.values()):
            template.end_if_unused()
        for pool, since in tuple(self._retired.items()):
            self._drain(pool, now - since)
        yield
        if not drained:
            self._provide(now)
        if now - self._saved > SAVE_EVERY:
            self._saved = now
            self._node.habits.save()

    def _provide(self, now: float) -> None:
        """Starts what is to be there before it is asked for."""
        for name in list(self._view.functions):
            revision = self._node.pointers.latest(name)
            if revision is not None and self._node.drivers and self._node.portion.least(revision):
                self._keep_minimum(revision)
        for name, habit in self._node.habits:
            if habit.put_away:
                self._prewarm(name, habit, now)

    def retire(self, pool: Pool) -> None:
        """Lets a pool finish what it runs, and ends it at the latest after ``drain_timeout``."""
        self._retired[pool] = monotonic()
        pool.retire()

    def _expire(self, pool: Pool, now: float) -> None:
        node, config = self._node, pool.config
        ttl = node.settings.warm_instance_ttl if config.idle_ttl is None else config.idle_ttl
        if surplus := node.allowance.surplus(pool.revision):
            pool.shed(surplus, "there are more than max_instances, or than this machine's part of it")
        if node.pointers.is_current(pool.revision):
            self._expire_current(pool, now, ttl)
            return
        ttl = min(ttl, REPLACED_TTL) if node.pointers.is_replaced(pool.revision) else ttl
        pool.expire(now, ttl, 0, f"nothing points at the revision, and it was idle for {ttl:g} s")
        if now - pool.created > CANDIDATE_GRACE and not pool.held:
            node.drop(pool)

    def _expire_current(self, pool: Pool, now: float, ttl: float) -> None:
        least = self._share(pool.revision)
        windows = windows_of(self._node.settings, pool.config, pool.habit)
        if not windows.learned or pool.used is None:
            pool.expire(now, ttl, least, f"it was idle for {ttl:g} s")
            return
        idle = now - pool.used
        if windows.want(idle):
            # A history says nothing of how many run side by side: those beyond the first are kept as ever.
            pool.expire(now, ttl, max(least, 1), f"it was idle for {ttl:g} s, and another is there")
            return
        ended = pool.expire(now, LINGER, least, _why_ended(windows, idle))
        if idle < windows.begin and pool.revision == self._node.pointers.latest(pool.revision.function):
            pool.habit.put_away += ended

    def _drain(self, pool: Pool, age: float) -> None:
        if not pool.held and not pool.waiting:
            del self._retired[pool]
        elif age > self._node.settings.drain_timeout:
            for instance in tuple(pool.instances):
                instance.end(NoCapacity("the revision was replaced and its time to finish is over"))

    def _share(self, revision: Revision) -> int:
        least = self._node.portion.least(revision)
        if not least:
            return 0
        return share_of(self._node.lane, ranking(revision.id, range(self._node.lanes)), least)

    def _keep_minimum(self, revision: Revision) -> None:
        pool = self._node.pool(revision)
        missing = pool.held < self._share(revision) and not pool.starting
        if missing and pool.backoff.grant(1, monotonic()):
            pool.starting += 1
            fewer = pool.held < pool.config.min_instances
            pool.note(ScalingAction.START, "there are fewer than min_instances" if fewer else EXPECTED)
            self._node.spawn(self._start_spare(pool))

    def _prewarm(self, name: str, habit: Habit, now: float) -> None:
        """Brings back what was put away of a function, once its next call is due."""
        node, revision = self._node, self._node.pointers.latest(name)
        if revision is None or habit.used is None:
            habit.put_away = 0
            return
        windows, idle = windows_of(node.settings, revision.config, habit), now - habit.used
        if idle < windows.begin:
            return
        wanted, habit.put_away = habit.put_away, 0
        if not windows.want(idle):
            return
        pool = node.pool(revision)
        room = min(node.portion.most(revision) - pool.held, node.room.left)
        count = instances_to_prewarm(wanted, pool.held, room, available_share())
        if count:
            pool.note(ScalingAction.START, f"a call is due: none came for {idle / 60:.0f} min", count)
        elif wanted > pool.held:
            pool.note(ScalingAction.STAY, "a call is due, but there is no room or too little memory")
        for _ in range(count):
            node.spawn(self._start_due(pool, pool.claim()))

    async def _start_due(self, pool: Pool, claim: Awaitable[Placement]) -> None:
        if await claim is Placement.GRANT:
            await self._start_spare(pool)

    async def _start_spare(self, pool: Pool) -> None:
        try:
            await pool.add_instance()
        except Exception as error:
            log.warning("spare_instance_not_started", revision=pool.revision.id, error=str(error))
            if isinstance(error, FunctionLoadFailed):
                pool.remarks.start_failed(error)
        else:
            self._node.allowance.changed()


def _why_ended(windows: Windows, idle: float) -> str:
    if idle < windows.begin:
        return f"no call is due before {windows.begin / 60:.0f} min after the last"
    return f"no call came within {windows.end / 60:.0f} min, as it usually does"
