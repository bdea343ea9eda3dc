"""Divides ``max_instances`` of what is in use over the nodes, by what they say of themselves (`scheduling.shares`), and
says how many instances each is to have ready (`scheduling.trend`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from time import monotonic

import structlog

from martlet.errors import NotFound
from martlet.model import Division, Node, Revision, Role
from martlet.scheduling.candidates import described, need_of, shares_among
from martlet.scheduling.placement import Candidate, Need, homes_first
from martlet.scheduling.shares import Report, dealt, redivided
from martlet.scheduling.trend import Forecast, Pace, Trend, spread
from martlet.storage.fenced import FencedStore
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import StoreError

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two looks; nodes say how they are every three."""


class Dividing:
    """See the module; it is the leader's.

    Args:
        store: where divisions are written; it refuses who does not lead any more.
        view: the store in memory.
        pace: how quickly instances follow the calls.
    """

    def __init__(self, store: FencedStore, view: RegistryView, pace: Pace) -> None:
        self._pace = pace
        self._trends: dict[tuple[str, float], Trend] = {}
        self._store = store
        self._registry = Registry(store)
        self._view = view
        self._news = True
        view.on_nodes.append(self._changed)

    def _changed(self) -> None:
        self._news = True

    async def run(self) -> None:
        """Does it until it is cancelled."""
        behind = True
        while True:
            try:
                if behind:
                    await self.catch_up()
                    behind = False
                if self._news or self._trends:
                    self._news = False
                    await self.look(monotonic())
            except StoreError as error:
                behind = self._news = True
                log.warning("instances_not_divided", error=str(error))
            await asyncio.sleep(EVERY)

    async def catch_up(self) -> None:
        """Reads what another that led before has written, or this one without knowing it. Raises `StoreError`."""
        await self._view.catch_up(await self._store.revision())

    async def look(self, now: float) -> None:
        """Divides once what needs it; ``now`` never goes back. Raises `StoreError`."""
        view = self._view
        withdrawing = view.withdrawing
        runners = [
            node for node in view.nodes.values() if Role.NODE in node.roles and node.id not in withdrawing
        ]
        used = {name for node in runners for name in (*node.warm, *node.calls)}
        written = 0
        for key, revision in tuple(view.revisions.items()):
            division = view.divisions.get(key)
            if division is not None or revision.id in used:
                forecast = self._forecast(revision, runners, now)
                divided = self._divided(revision, division, runners, forecast)
                if divided is not None:
                    written = await self._registry.put_division(divided)
        for function, number in tuple(view.divisions.keys() - view.revisions.keys()):
            with suppress(NotFound):  # the revision was deleted a while ago
                written = await self._registry.delete_division(function, number)
        if written:
            await view.catch_up(written)

    def _forecast(self, revision: Revision, runners: list[Node], now: float) -> Forecast:
        """Returns how many instances of a revision will be needed."""
        key = revision.id, revision.created
        trend = self._trends.setdefault(key, Trend(self._pace))
        trend.observe(now, sum(node.calls.get(revision.id, 0.0) for node in runners))
        ready = sum(node.warm.get(revision.id, (0, 0))[0] for node in runners)
        config = revision.config
        forecast = trend.forecast(now, ready, config.concurrency, config.max_instances)
        if trend.over:
            del self._trends[key]
        return forecast

    def _divided(
        self,
        revision: Revision,
        division: Division | None,
        runners: list[Node],
        forecast: Forecast,
    ) -> Division | None:
        """Returns how a revision is to be divided from now on; None where nothing changes, or cannot yet."""
        if not runners:
            return None
        seen = self._view.divided.get((revision.function, revision.number), 0)
        if any(node.divided < seen for node in runners if any(lane.state == "ready" for lane in node.lanes)):
            return None  # somebody goes by the division before this one
        shares = redivided(
            revision.config.max_instances,
            shares_among(runners, revision, division),
            _reports(revision, runners),
        )
        calls = {node.id: node.calls.get(revision.id, 0.0) for node in runners}
        wanted = spread(forecast.instances, calls, shares)
        known = division if division is not None and division.created == revision.created else None
        if (
            known is not None
            and known.shares == shares
            and sum(known.wanted.values()) == sum(wanted.values())
            and known.wanted.keys() <= shares.keys()
        ):
            return None  # on which of them they are makes no difference that is worth writing
        log.info("instances_divided", revision=revision.id, shares=shares, wanted=wanted, why=forecast.reason)
        return Division(
            function=revision.function,
            number=revision.number,
            created=revision.created,
            shares=shares,
            wanted=wanted,
            why=forecast.reason,
        )


def _reports(revision: Revision, runners: Iterable[Node]) -> dict[str, Report]:
    nodes = {node.id: node for node in runners}
    need, config = need_of(revision), revision.config
    found = described([*nodes.values()], revision)
    least = dealt(need, config.min_instances, found)
    return {
        each.name: Report(
            held=each.held,
            wanted=ceil(nodes[each.name].calls.get(revision.id, 0.0) / config.concurrency),
            room=_room(each, need),
            least=least.get(each.name, 0),
        )
        for each in homes_first(need, found)
    }


def _room(node: Candidate, need: Need) -> int:
    rooms = [node.room, node.memory // need.memory]
    if need.cpu:
        rooms.append(node.cpu // need.cpu)
    return max(0, min(rooms))
