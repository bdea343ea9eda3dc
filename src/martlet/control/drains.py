"""Machines that are to hold nothing: who runs their functions meanwhile, and that the store remembers it."""

from __future__ import annotations

import asyncio
from time import time

import structlog

from martlet.control.lanes import Lanes
from martlet.errors import Conflict, MartletError, NotFound
from martlet.model import Drain, Node, Revision, Role
from martlet.scheduling.candidates import candidates, need_of, shares_among
from martlet.scheduling.placement import choose_node
from martlet.storage.registry import Registry, RegistryView

log = structlog.get_logger()

STARTS_AT_ONCE = 4
"""Instances that are started at once in place of those of a machine that is drained."""
STARTS_TIMEOUT = 30.0
"""Seconds that these may take together; what is not there by then starts with its first request."""


def gives_way(view: RegistryView, own: str) -> bool:
    """Returns whether a machine withdraws, and another one with control does not."""
    withdrawing = view.withdrawing
    return own in withdrawing and any(
        Role.CONTROL in node.roles and node.id not in withdrawing for node in view.nodes.values()
    )


class Drains:
    """See the module.

    Args:
        registry: where they are kept.
        view: the store in memory.
        lanes: of this machine, which reach the others.
        own: the id of this machine.
    """

    def __init__(self, registry: Registry, view: RegistryView, lanes: Lanes, own: str) -> None:
        self._registry = registry
        self._view = view
        self._lanes = lanes
        self._own = own

    async def drain(self, name: str) -> None:
        """Lets others have the work of a machine, until `resume`; what it runs is finished there.

        Raises:
            NotFound: there is no such machine.
            Conflict: no other would be left that runs functions.
        """
        node = self._view.nodes.get(name)
        if node is None:
            raise NotFound(f"there is no node {name!r}: `martlet nodes` lists those that are alive")
        if name in self._view.drains:
            return
        staying = self._staying(name)
        if Role.NODE in node.roles:
            if not staying:
                raise Conflict(
                    f"no other machine would run the functions of {name!r}: start another, or resume one that is "
                    "drained"
                )
            await self._start_elsewhere(node, staying)
        await self._lanes.sync(await self._registry.put_drain(Drain(node=name, since=time())))
        log.info("node_drained", node=name)

    async def resume(self, name: str) -> None:
        """Lets a machine have work again, whether or not it is alive. Raises `NotFound`: it is not drained."""
        try:
            revision = await self._registry.delete_drain(name)
        except NotFound:
            raise NotFound(
                f"the node {name!r} is not drained: `martlet nodes` lists those that are"
            ) from None
        await self._lanes.sync(revision)
        log.info("node_resumed", node=name)

    def _staying(self, name: str) -> list[Node]:
        """Returns the machines that run functions and go on doing so without this one."""
        leaving = {*self._view.withdrawing, name}
        return [
            node
            for node in self._view.nodes.values()
            if Role.NODE in node.roles
            and node.id not in leaving
            and (node.peer is not None or node.id == self._own)
        ]

    async def _start_elsewhere(self, node: Node, staying: list[Node]) -> None:
        """Starts an instance of what is warm on this machine only, so that no request waits for one."""
        warm = {revision for other in staying for revision in other.warm}
        served = {(function.name, function.latest) for function in self._view.functions.values()}
        moving = [self._view.revisions[key] for key in served & self._view.revisions.keys()]
        at_once = asyncio.Semaphore(STARTS_AT_ONCE)
        starts = [
            asyncio.ensure_future(self._start(revision, staying, at_once))
            for revision in moving
            if revision.id in node.warm and revision.id not in warm
        ]
        if starts:
            _, late = await asyncio.wait(starts, timeout=STARTS_TIMEOUT)
            for start in late:
                start.cancel()

    async def _start(self, revision: Revision, staying: list[Node], at_once: asyncio.Semaphore) -> None:
        async with at_once:
            division = self._view.divisions.get((revision.function, revision.number))
            shares = shares_among(staying, revision, division)  # as they will be
            chosen = choose_node(need_of(revision), candidates(staying, revision, shares=shares), 0)
            if chosen is None:
                log.warning("not_started_elsewhere", revision=revision.id, error="no machine has room")
                return
            try:
                await self._lanes.load(revision, None if chosen.name == self._own else chosen.name)
            except MartletError as error:
                log.warning("not_started_elsewhere", revision=revision.id, error=str(error))
