"""Divides ``max_instances`` of what is in use over the nodes, by what they say of themselves (`scheduling.shares`), and
says how many instances each is to have ready (`scheduling.trend`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

import structlog

from martlet.control.usage import Usage
from martlet.errors import NotFound
from martlet.model import Division, Revision, Role
from martlet.scheduling.candidates import described, need_of, shares_among
from martlet.scheduling.placement import homes_first
from martlet.scheduling.shares import Report, dealt, redivided
from martlet.scheduling.steadiness import Steadiness
from martlet.scheduling.trend import Forecast, Pace, Trend, spread
from martlet.storage.fenced import FencedStore
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import StoreError

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two looks; nodes say how they are every three."""
AGAIN = 30.0
"""Seconds after which a revision is looked at whole again whose nodes have what they want and say nothing else: there
may be other room for it."""
STARTING = 5.0
"""Seconds for which a node whose lanes all start anew counts as if it had room for its share: else that would go, and
come back ten seconds later."""
TURN = 0.02
"""Seconds of work after which others in this process have their turn: of a thousand revisions a look takes longer than
the leader may be silent."""


class Standing(NamedTuple):
    """What of a revision decides how it is divided, but for the room on nodes: where it is the same, so is that."""

    created: float
    division: int
    nodes: int
    starting: frozenset[str]
    instances: int
    held: Mapping[str, int]
    wanted: Mapping[str, int]


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
        self._steadiness: dict[tuple[str, float], Steadiness] = {}
        self._standing: dict[tuple[str, int], tuple[Standing, float]] = {}
        self._nodes: set[str] = set()
        self._away: dict[str, float] = {}  # when nodes were first seen without a lane that is ready
        self._changes_of_nodes = 0
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
        usage = Usage(
            node for node in view.nodes.values() if Role.NODE in node.roles and node.id not in withdrawing
        )
        nodes = {node.id for node in usage.runners}
        if nodes != self._nodes:
            self._nodes, self._changes_of_nodes = nodes, self._changes_of_nodes + 1
        starting = self._starting(usage, now)
        written, turn = 0, monotonic()
        for key, revision in tuple(view.revisions.items()):
            division = view.divisions.get(key)
            if division is None and revision not in usage:
                continue
            forecast = self._forecast(revision, usage, now)
            divided = self._divided(revision, division, usage, starting, forecast, now)
            if divided is not None:
                written = await self._registry.put_division(divided)
            if monotonic() - turn > TURN:
                await asyncio.sleep(0)
                turn = monotonic()
        for function, number in tuple(view.divisions.keys() - view.revisions.keys()):
            self._standing.pop((function, number), None)
            with suppress(NotFound):  # the revision was deleted a while ago
                written = await self._registry.delete_division(function, number)
        if written:
            await view.catch_up(written)

    def _starting(self, usage: Usage, now: float) -> frozenset[str]:
        """Returns the nodes that have had no lane for `STARTING` at most."""
        away = usage.away
        self._away = {name: self._away.get(name, now) for name in away}
        return frozenset(name for name, since in self._away.items() if now - since < STARTING)

    def _forecast(self, revision: Revision, usage: Usage, now: float) -> Forecast:
        """Returns how many instances of a revision will be needed."""
        key = revision.id, revision.created
        trend = self._trends.setdefault(key, Trend(self._pace))
        self._steadiness.setdefault(key, Steadiness())
        trend.observe(now, sum(usage.calls(revision).values()))
        config = revision.config
        ready = sum(usage.held(revision).values())
        forecast = trend.forecast(now, ready, config.concurrency, config.max_instances)
        if trend.over:
            del self._trends[key], self._steadiness[key]
        return forecast

    def _wanted(self, revision: Revision, usage: Usage, now: float) -> dict[str, int]:
        """Returns how many instances of a revision each node is taken to want."""
        steadiness = self._steadiness.get((revision.id, revision.created))
        wanted = usage.wanted(revision)
        return wanted if steadiness is None else steadiness.steadied(now, wanted)

    def _divided(
        self,
        revision: Revision,
        division: Division | None,
        usage: Usage,
        starting: frozenset[str],
        forecast: Forecast,
        now: float,
    ) -> Division | None:
        """Returns how a revision is to be divided from now on; None where nothing changes, or cannot yet."""
        if not usage.runners:
            return None
        key = revision.function, revision.number
        seen = self._view.divided.get(key, 0)
        if usage.divided is not None and usage.divided < seen:
            return None  # somebody goes by the division before this one
        standing = Standing(
            revision.created,
            seen,
            self._changes_of_nodes,
            starting,
            forecast.instances,
            usage.held(revision),
            self._wanted(revision, usage, now),
        )
        before, at = self._standing.get(key, (None, 0.0))
        if standing == before and now - at < AGAIN:
            return None
        current = shares_among(usage.runners, revision, division)
        kept = {name: share for name, share in current.items() if name in starting}
        shares = redivided(
            revision.config.max_instances, current, _reports(revision, usage, standing.wanted, kept)
        )
        calls = usage.at_home(revision)
        wanted = spread(forecast.instances, calls, shares)
        known = division if division is not None and division.created == revision.created else None
        if (
            known is not None
            and known.shares == shares
            and sum(known.wanted.values()) == sum(wanted.values())
            and known.wanted.keys() <= shares.keys()
            and all(
                name in known.wanted or calls.get(name, 0.0) < revision.config.concurrency for name in wanted
            )
        ):
            if all(shares.get(name, 0) >= count for name, count in standing.wanted.items()):
                self._standing[key] = standing, now
            return None  # else on which of them they are makes no difference that is worth writing
        log.info("instances_divided", revision=revision.id, shares=shares, wanted=wanted, why=forecast.reason)
        return Division(
            function=revision.function,
            number=revision.number,
            created=revision.created,
            shares=shares,
            wanted=wanted,
            why=forecast.reason,
        )


def _reports(
    revision: Revision, usage: Usage, wanted: Mapping[str, int], kept: Mapping[str, int]
) -> dict[str, Report]:
    """Returns what all nodes say; those of ``kept`` have room for so many instances, whatever they say."""
    need, config = need_of(revision), revision.config
    found = described(usage.runners, revision)
    least = dealt(need, config.min_instances, found)
    lent = usage.lent(revision)
    return {
        each.name: Report(
            held=each.held,
            wanted=wanted.get(each.name, 0),
            room=max(each.room_for(need), kept.get(each.name, 0) - each.held),
            least=least.get(each.name, 0),
            lent=max(0, lent.get(each.name, 0)),
        )
        for each in homes_first(need, found)
    }
