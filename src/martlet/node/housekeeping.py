"""What a lane looks after once a second: idle instances, minimums, ready cells, and the end of replaced revisions."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from martlet.errors import NoCapacity
from martlet.model import Revision
from martlet.node.pool import Pool
from martlet.scheduling.placement import ranking, share_of
from martlet.storage.registry import RegistryView

if TYPE_CHECKING:
    from martlet.node.node import Node

log = structlog.get_logger()

EVERY = 1.0
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

    async def run(self) -> None:
        """Looks after the node until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            self._node.allowance.changed()
            now = monotonic()
            for pool in tuple(self._node.pools.values()):
                self._expire(pool, now)
            for template in tuple(self._node.templates.values()):
                template.end_if_unused()
            for pool, since in tuple(self._retired.items()):
                self._drain(pool, now - since)
            for function in list(self._view.functions.values()):
                revision = self._view.revisions.get((function.name, function.latest))
                if revision is not None and revision.config.min_instances:
                    self._keep_minimum(revision)
            self._node.keep_cells()
            await self._node.stocks.tidy()

    def retire(self, pool: Pool) -> None:
        """Lets a pool finish what it runs, and ends it at the latest after ``drain_timeout``."""
        self._retired[pool] = monotonic()
        pool.retire()

    def _expire(self, pool: Pool, now: float) -> None:
        node, config = self._node, pool.config
        ttl = node.settings.warm_instance_ttl if config.idle_ttl is None else config.idle_ttl
        if surplus := node.allowance.surplus(pool.revision):
            pool.expire(now, 0.0, len(pool.instances) - surplus)
        if node.is_current(pool.revision):
            pool.expire(now, ttl, self._share(pool.revision) if config.min_instances else 0)
            return
        pool.expire(now, min(ttl, REPLACED_TTL) if node.is_replaced(pool.revision) else ttl, 0)
        if now - pool.created > CANDIDATE_GRACE and not pool.held:
            node.drop(pool)

    def _drain(self, pool: Pool, age: float) -> None:
        if not pool.held and not pool.waiting:
            del self._retired[pool]
        elif age > self._node.settings.drain_timeout:
            for instance in tuple(pool.instances):
                instance.end(NoCapacity("the revision was replaced and its time to finish is over"))

    def _share(self, revision: Revision) -> int:
        ranked = ranking(revision.id, range(self._node.lanes))
        return share_of(self._node.lane, ranked, revision.config.min_instances)

    def _keep_minimum(self, revision: Revision) -> None:
        pool = self._node.pool(revision)
        if pool.held < self._share(revision) and not pool.starting:
            pool.starting += 1
            self._node.spawn(self._start_spare(pool))

    async def _start_spare(self, pool: Pool) -> None:
        try:
            await pool.add_instance()
        except Exception as error:
            log.warning("min_instance_not_started", revision=pool.revision.id, error=str(error))
        else:
            self._node.allowance.changed()
